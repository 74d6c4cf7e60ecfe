#!/usr/bin/env bash
# Fills the conda environment; Snakemake runs it from the repository's root. Torch first, as in the Makefile.
set -euo pipefail
pip install -c constraints.txt torch
pip install -c constraints.txt -e '.[workflow,peers]'
