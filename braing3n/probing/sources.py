"""Where probed features come from: encoded tables, cached latents, or columns of the metadata (the controls)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open

from braing3n.errors import BrainG3NError
from braing3n.files import read_parquet
from braing3n.probing.tasks import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Features of every row of the metadata table.

    Attributes:
        name: as configured.
        present: (n,) bool, rows that have features.
        matrix: task -> (n, d) float32; controls leave out the column that the task asks for.
        components: principal components to reduce to, fitted in each training set; None keeps the features.
        from_images: whether ComBat applies; the controls from the metadata are no measurements of a site.
        width: features of an encoder; None for the controls, whose features depend on the task or are reduced.
    """

    name: str
    present: np.ndarray
    matrix: Callable[[Task], np.ndarray]
    components: int | None = None
    from_images: bool = True
    width: int | None = None


def load_source(name: str, metadata: pd.DataFrame, results: str | Path, components: int) -> Source:
    """Features by the name they are configured under.

    `demographics` and `site` come from the metadata, `tokenizer` is the mean of each volume's latent tokens,
    `tokenizer-<name>` that of the tokenizer in `models/tokenizer-<name>`, such as one of another width d', `pca` block
    intensities, of which principal components are fitted; every other name is an encoder's, `features/<name>`, or an
    encoder's and a pooling's, as `mae-brain` is the column `feature_brain` of `features/mae`.

    Args:
        components: principal components that `pca` keeps at most.

    Raises:
        BrainG3NError: there are no features of that name.
    """
    everything = np.ones(len(metadata), dtype=bool)
    if name == "demographics":
        return Source(name, everything, lambda task: demographics(metadata, task), from_images=False)
    if name == "site":
        return Source(name, everything, lambda task: sites(metadata, task), from_images=False)
    results = Path(results)
    if name == "tokenizer":
        matrix = latent_means(metadata, results)
    elif name.startswith("tokenizer-"):
        matrix = projected(results / "models" / name, encoded("mae", metadata, results))
    else:
        matrix = encoded(name, metadata, results)
    present = np.isfinite(matrix).all(1)
    if not present.all():
        logger.warning("%s: no features for %d of %d volumes", name, (~present).sum(), len(present))
    if name == "pca":
        matrix = matrix[:, np.ptp(matrix[present], axis=0) > 0]  # blocks outside every brain
        return Source(name, present, lambda task: matrix, components)
    return Source(name, present, lambda task: matrix, width=matrix.shape[1])


def encoded(name: str, metadata: pd.DataFrame, results: Path) -> np.ndarray:
    """Pooled features (n, d) float32 in the metadata's order, NaN for volumes that lack them."""
    folder, column = results / "features" / name, "feature"
    if not folder.is_dir() and "-" in name:
        encoder, _, pooling = name.rpartition("-")
        folder, column = results / "features" / encoder, f"feature_{pooling}"
    if not folder.is_dir():
        raise BrainG3NError(
            f"there are no features of '{name}'", file=folder, remedy=f"run: braing3n encode --encoder {name}"
        )
    matrix = np.empty((0, 0), dtype=np.float32)
    for file, rows in shards(metadata, folder, ".parquet"):
        table = read_parquet(file)
        if column not in table:
            raise BrainG3NError(f"has no column {column}", file=file, found=", ".join(table.columns))
        features = np.stack(table[column].to_list()).astype(np.float32)
        matrix = place(matrix, features, table["volume_id"], metadata["volume_id"], rows)
    return matrix


def latent_means(metadata: pd.DataFrame, results: Path) -> np.ndarray:
    """Mean over tokens of the cached latents: (n, L) float32."""
    matrix, made_by = np.empty((0, 0), dtype=np.float32), set()
    for file, rows in shards(metadata, results / "latents", ".safetensors"):
        with safe_open(str(file), framework="numpy") as content:
            made_by.add((content.metadata() or {}).get("tokenizer_sha256"))
            features = content.get_tensor("latents").mean(1, dtype=np.float32)
        ids = read_parquet(file.with_suffix(".parquet")).sort_values("row")["volume_id"]
        matrix = place(matrix, features, ids, metadata["volume_id"], rows)
    if len(made_by) > 1:
        raise BrainG3NError(
            "latents come from different tokenizers", file=results / "latents", remedy="run the rule encode again"
        )
    return matrix


def projected(tokenizer: Path, tokens: np.ndarray) -> np.ndarray:
    """Mean latents (n, L) of a tokenizer from the MAE's mean tokens (n, D): z' = z P is linear, no volume is needed."""
    path = tokenizer / "model.safetensors"
    if not path.exists():
        raise BrainG3NError(
            "there is no such tokenizer",
            file=path,
            remedy=f"run: braing3n tokenizer train with another tokenizer.model.latent and --out {tokenizer}",
        )
    with safe_open(str(path), framework="numpy") as content:
        projection = content.get_tensor("projection.weight")  # (L, D)
    if projection.shape[1] != tokens.shape[1]:
        raise BrainG3NError(
            "belongs to another MAE", file=path, found=f"width {projection.shape[1]}, features {tokens.shape[1]}"
        )
    return tokens @ projection.T.astype(np.float32)


def shards(metadata: pd.DataFrame, folder: Path, suffix: str):
    """Existing files of a per-shard product with the rows (positions) of the metadata that belong to each."""
    found = False
    positions = pd.Series(np.arange(len(metadata)), index=metadata.index)
    for (cohort, shard), rows in positions.groupby([metadata["cohort"], metadata["shard"]], sort=True):
        file = folder / cohort / f"{shard}{suffix}"
        if file.exists():
            found = True
            yield file, rows.to_numpy()
    if not found:
        raise BrainG3NError("holds nothing of these shards", file=folder, remedy="run the rule that encodes them")


def place(matrix: np.ndarray, features: np.ndarray, ids: pd.Series, wanted: pd.Series, rows: np.ndarray) -> np.ndarray:
    """Write a shard's features into the rows of the matrix (made on first use) that carry their ids."""
    if not len(matrix):
        matrix = np.full((len(wanted), features.shape[1]), np.nan, dtype=np.float32)
    if features.shape[1] != matrix.shape[1]:
        raise BrainG3NError(
            "features of different widths in one folder", found=f"{features.shape[1]} and {matrix.shape[1]}"
        )
    at = pd.Index(ids).get_indexer(wanted.iloc[rows])
    matrix[rows[at >= 0]] = features[at[at >= 0]]
    return matrix


def demographics(metadata: pd.DataFrame, task: Task) -> np.ndarray:
    """Age and sex, with flags where unknown, less the one that the task asks for. (n, d) float32."""
    columns = []
    if task.field != "age_at_scan":
        age = metadata["age_at_scan"].to_numpy(dtype=float, na_value=np.nan)
        known = np.isfinite(age)
        # Decades around 50: about the scale of the other columns, so that the published ridge treats them alike.
        columns += [np.where(known, (age - 50) / 10, 0), ~known]
    if task.field != "sex":
        sex = metadata["sex"]
        columns += [(sex == "M").to_numpy(dtype=bool), (sex == "F").to_numpy(dtype=bool)]
    return np.stack(columns, axis=1).astype(np.float32)


def sites(metadata: pd.DataFrame, task: Task) -> np.ndarray:
    """One-hot acquisition site, or cohort where the site is unknown. (n, sites) float32; (n, 0) when site is asked."""
    if task.field in ("site", "cohort"):
        return np.empty((len(metadata), 0), dtype=np.float32)
    codes = site_codes(metadata)
    return np.eye(codes.max() + 1, dtype=np.float32)[codes]


def site_codes(metadata: pd.DataFrame) -> np.ndarray:
    """Acquisition site of every scan as an integer, or its cohort where the site is unknown. (n,)."""
    names = metadata["site"].astype("object").where(metadata["site"].notna(), metadata["cohort"])
    return pd.factorize(metadata["cohort"].astype(str) + ":" + names.astype(str), sort=True)[0]
