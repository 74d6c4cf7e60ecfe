"""The results folder in miniature, with every model trained for a moment."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch


def load_tiny():
    spec = importlib.util.spec_from_file_location("tiny_results", Path(__file__).with_name("tiny.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny():
    return load_tiny()


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """`results`, `metadata` and the folders `mae, tokenizer, dit, longitudinal`; every shard is encoded."""
    from braing3n.evaluation.latent_encoding import encode_cohort
    from braing3n.training.dit_task import train_dit
    from braing3n.training.longitudinal_task import train_longitudinal
    from braing3n.training.tokenizer_task import train_tokenizer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    metadata = tiny.write_results(results)
    folders = {name: results / "models" / name for name in ("mae", "tokenizer", "dit", "longitudinal")}
    train_tokenizer(metadata, results, folders["mae"], tiny.tokenizer_settings(), folders["tokenizer"])
    for cohort in ("IXI", "ADNI"):
        tables = (results / folder / f"{cohort}.parquet" for folder in ("latents", "features/mae"))
        encode_cohort(metadata, results, cohort, folders["mae"], folders["tokenizer"], *tables)
    train_dit(metadata, results, folders["tokenizer"], tiny.dit_settings(), folders["dit"])
    train_longitudinal(metadata, results, folders["tokenizer"], tiny.longitudinal_settings(), folders["longitudinal"])
    yield SimpleNamespace(results=results, metadata=metadata, **folders)
    torch.set_num_threads(threads)
