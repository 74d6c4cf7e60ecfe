"""A results folder in miniature: 32x48x32 volumes of twelve tokens, with models that take moments to train.

Brains are ellipsoids in the middle four tokens, with a dark core that grows with age. Three persons of ADNI have
follow-ups, one each in train, val and test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.config.models import (
    CategoricalCondition,
    ConditionVocabulary,
    ContinuousCondition,
    DiTArchitecture,
    MAEArchitecture,
    TokenizerArchitecture,
)
from braing3n.config.training import (
    DiTSettings,
    LongitudinalSettings,
    SamplerSettings,
    TokenizerSettings,
    TrainSettings,
)
from braing3n.files import write_parquet
from braing3n.models.mae import MaskedAutoencoder, mae_card_architecture
from braing3n.models.weights import save_model
from braing3n.training.seeds import seeded
from braing3n.volumes.store import write_array

SHAPE = (32, 48, 32)
PATCH = 16
SEX = CategoricalCondition(column="sex", classes=("F", "M"))
DISEASE = CategoricalCondition(column="diagnosis", classes=("HC", "MCI", "AD"))
MODALITY = CategoricalCondition(column="modality", classes=("T1", "T2"))
AGE, HORIZON = ContinuousCondition(column="age_at_scan"), ContinuousCondition(column="horizon", scale=10)
CONDITIONS = ConditionVocabulary(categorical={"sex": SEX, "modality": MODALITY}, continuous={"age": AGE})
LONGITUDINAL = ConditionVocabulary(categorical={"disease": DISEASE}, continuous={"age": AGE, "horizon": HORIZON})
SAMPLER = SamplerSettings(steps=3, guidance=2.0, batch_size=3)


def train_settings(**changes) -> TrainSettings:
    return TrainSettings(
        **{
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 3e-3,
            "precision": "fp32",
            "device": "cpu",
            "stop_before_s": 0,
            **changes,
        }
    )


def tokenizer_settings(**changes) -> TokenizerSettings:
    arch = TokenizerArchitecture(latent=6, widths=(8, 8, 4, 4, 4), blocks_per_level=1, attention_heads=1, groups=2)
    return TokenizerSettings(model=arch, train=train_settings(**changes))


def dit_settings(**changes) -> DiTSettings:
    arch = DiTArchitecture(hidden=24, depth=1, heads=2, mlp_ratio=2, latent=6)
    return DiTSettings(model=arch, train=train_settings(ema_decay=0.9, **changes), conditions=CONDITIONS)


def longitudinal_settings(cohorts=("ADNI",), **changes) -> LongitudinalSettings:
    arch = DiTArchitecture(hidden=24, depth=1, heads=2, mlp_ratio=2, latent=6)
    return LongitudinalSettings(
        model=arch,
        train=train_settings(ema_decay=0.9, **changes),
        conditions=LONGITUDINAL,
        cohorts=cohorts,
        sampler=SAMPLER.model_copy(update={"guidance": 1.0}),
        forecast_baselines=4,
        horizons_years=(0.0, 2.0),
    )


def scan(cohort: str, person: str, session: str, modality: str, age: float, split: str, **more) -> dict:
    return {
        "volume_id": f"{cohort}-{person}-{session}-{modality}",
        "cohort": cohort,
        "shard": "0000",
        "person_id": f"{cohort}:{person}",
        "session_id": session,
        "modality": modality,
        "age_at_scan": age,
        "age_is_binned": False,
        "sex": "FM"[len(person) % 2],
        "diagnosis": "HC",
        "session_date": None,
        "split": split,
        **more,
    }


def table() -> pd.DataFrame:
    rows = [
        scan("IXI", f"p{i}", "1", m, 20.0 + 8 * i, "val" if i == 5 else "train") for i in range(6) for m in ("T1", "T2")
    ]
    for person, split in (("a", "train"), ("b", "val"), ("c", "test")):
        rows += [scan("ADNI", person, f"v{v}", "T1", 65.0 + 2 * v, split) for v in range(3)]
    return pd.DataFrame(rows)


def brain(age: float, modality: str, seed: int) -> np.ndarray:
    """Intensities (32, 48, 32) of an ellipsoid with a core that grows with age; contrast is reversed on T2."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt(sum((axis / semi) ** 2 for axis, semi in zip(axes, (0.85, 0.3, 0.85), strict=True)))
    core = 0.2 + 0.005 * age
    tissue, fluid = (3.0, 1.0) if modality == "T1" else (1.0, 3.0)
    signal = np.where(radius < core, fluid, tissue) * (radius < 1)
    noise = 0.1 * np.random.default_rng(seed).standard_normal(SHAPE) * (radius < 1)
    return np.maximum(signal + noise, 0).astype(np.float32)


def write_results(folder: Path, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """Volume stores and an untrained MAE in `folder` -> the metadata of the stores."""
    rows = table() if rows is None else rows
    parts = []
    for cohort, part in rows.groupby("cohort", sort=False):
        file = f"volumes/{cohort}/0000.npy"
        volumes = [
            brain(row.age_at_scan, row.modality, seed) for seed, row in zip(part.index, part.itertuples(), strict=True)
        ]
        store = write_store_of(folder / file, part, volumes)
        parts.append(part.merge(store, on="volume_id").assign(store_file=file))
    with seeded(0):
        mae = MaskedAutoencoder(
            MAEArchitecture(
                hidden=24, depth=1, heads=2, mlp=48, decoder_hidden=24, decoder_depth=1, decoder_heads=2, decoder_mlp=48
            ),
            SHAPE,
            PATCH,
        )
    save_model(mae, {"architecture": mae_card_architecture(mae)}, folder / "models" / "mae")
    return pd.concat(parts, ignore_index=True)


def write_store_of(path: Path, part: pd.DataFrame, volumes: list[np.ndarray]) -> pd.DataFrame:
    written = write_array(path, volumes, len(volumes), SHAPE)
    written.insert(0, "volume_id", part["volume_id"].to_numpy())
    write_parquet(path.with_suffix(".parquet"), written)
    return written.rename(columns={"row": "store_row"}).drop(columns="sha256")
