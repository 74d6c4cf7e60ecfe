# Two commands on a fresh machine: `make demo` and `make test`. Both build .venv first.
PYTHON ?= python3
VENV   := .venv
export PATH := $(CURDIR)/.venv/bin:$(PATH)
BIN    := $(VENV)/bin
.PHONY: help demo test test-slow test-slurm lint format env-braing3n env-hdbet env-hdbet-v1
.DEFAULT_GOAL := help

help:
	@echo "make demo   install, run phantom cohorts through the whole workflow, print where the report is"
	@echo "make test   install, run the tests"
	@echo "make test-slow   the tests that take minutes, the whole workflow among them"
	@echo "make test-slurm   the SLURM profile on a real SLURM of this machine (root, apt)"
	@echo "make env-NAME   an environment by pip alone: braing3n, and on top of it hdbet or hdbet-v1"
	@echo "make lint   ruff, snakefmt --check, snakemake --lint"

# torch goes first and pinned: resolved together with the rest, pip may pick a CUDA build.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[workflow,peers,test]'
	touch $@

# The atlas comes first, since the phantoms are made from it; then the index is frozen; then the workflow runs.
demo: $(VENV)/.installed
	snakemake atlas --profile profiles/demo --quiet
	braing3n phantom make --atlas demo/resources/atlas --settings config/config.yaml+config/demo.yaml#phantom
	braing3n index --config config/config.yaml --config config/demo.yaml
	snakemake all --profile profiles/demo
	@echo "The report is at $(CURDIR)/demo/results/report/report.html"

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m 'not slurm and not slow' -n 2 --dist loadfile

# The whole workflow with damaged files and a SIGKILL, twenty random kills, and what else takes minutes.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

# Installs Debian's SLURM where it is missing (root), starts two nodes with fake H100s, and stops them again.
test-slurm: $(VENV)/.installed
	$(BIN)/python -m pytest -m slurm -rs tests/slurm

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# Everything but HD-BET, Snakemake and science in one: their versions agree (constraints.txt).
env-braing3n: $(VENV)/.installed

# HD-BET 2 as the mask backend; its weights come separately (docs/preprocess-steps.md).
env-hdbet: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -r envs/hdbet.txt

env-hdbet-v1: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -r envs/hdbet-v1.txt

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow
