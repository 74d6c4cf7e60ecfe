"""A narrow MAE and a small volume store at the real geometry."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from braing3n.config.models import MAEArchitecture
from braing3n.geometry import VOLUME_SHAPE
from braing3n.models.mae import MaskedAutoencoder, mae_card_architecture
from braing3n.models.weights import save_model
from braing3n.training.seeds import seeded
from braing3n.volumes.store import write_store

NARROW = MAEArchitecture(
    hidden=24, depth=1, heads=2, mlp=24, decoder_hidden=24, decoder_depth=1, decoder_heads=2, decoder_mlp=24
)


def head(seed: int) -> np.ndarray:
    """An ellipsoid of smooth random intensity on the store's grid, about as large as a brain."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(200, 800, (10, 12, 10)).astype(np.float32)
    volume = coarse.repeat(16, 0).repeat(16, 1).repeat(16, 2)
    axes = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in VOLUME_SHAPE)]
    return np.where(sum(a**2 for a in axes) < 0.7, volume, 0).astype(np.float32)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory) -> SimpleNamespace:
    """`results` with `models/mae` and a shard of three volumes, and its `metadata`."""
    results: Path = tmp_path_factory.mktemp("small-store")
    ids = [f"{i:016x}" for i in range(3)]
    rows = write_store(results / "volumes/IXI/0000.npy", ids, (head(i) for i in range(3)))
    metadata = rows.rename(columns={"row": "store_row"}).assign(
        store_file="volumes/IXI/0000.npy", cohort="IXI", shard="0000", person_id=ids, modality="T1", split="train"
    )
    with seeded(7):
        model = MaskedAutoencoder(NARROW)
    save_model(model, {"name": "mae", "architecture": mae_card_architecture(model)}, results / "models/mae")
    return SimpleNamespace(results=results, metadata=pd.DataFrame(metadata), mae=results / "models/mae", model=model)
