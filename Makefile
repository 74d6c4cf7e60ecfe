# Two commands on a fresh machine: `make demo` and `make test`. Both build .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := --configfile config/demo.yaml --profile profiles/demo

.PHONY: demo test lint format clean-demo
.DEFAULT_GOAL := help

help:
	@echo "make demo   install, run phantom cohorts through the whole workflow, print where the report is"
	@echo "make test   install, run the tests"
	@echo "make lint   ruff, snakefmt --check, snakemake --lint"

# torch goes first and pinned: resolved together with the rest, pip may pick a CUDA build.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[workflow,peers,test]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/braing3n demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow
