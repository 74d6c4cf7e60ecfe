"""Are generated volumes copies of training scans? Nearest neighbours in the latent space (paper, section 3.3).

Distances are L2 over all 38,400 normalised latent values. Generated volumes may copy only what the generator was
trained on, so the reference of a real scan is its nearest training scan of another person.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braing3n.config.training import MemorizationSettings
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of
from braing3n.models.tokenizer import Tokenizer, load_tokenizer
from braing3n.models.weights import WEIGHTS
from braing3n.results import results_table
from braing3n.volumes.latents import LatentFeed, read_latents

logger = logging.getLogger(__name__)

BLOCK = 512  # latents of 38,400 float32 a block: 79 MB
SPARE = 8  # candidates beyond those asked for, whose distances are computed exactly
CONTROLS = 64  # noisy copies of training latents in the positive control
CONTROL_NOISE = (0.01, 0.03, 0.1)  # in units of a latent channel's standard deviation


@dataclass(frozen=True)
class Latents:
    """Normalised latents (n, d) of scans or samples, float16 to hold the whole corpus in memory."""

    values: Tensor
    ids: np.ndarray
    persons: np.ndarray

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.ids), BLOCK):
            part = slice(start, min(start + BLOCK, len(self.ids)))
            yield part, self.values[part].float()

    def subset(self, chosen: np.ndarray) -> Latents:
        return Latents(self.values[torch.from_numpy(np.asarray(chosen))], self.ids[chosen], self.persons[chosen])


@torch.no_grad()
def nearest(queries: Latents, pool: Latents, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest neighbours of each query among the pool's scans of other persons.

    Candidates come from |q|^2 + |r|^2 - 2 q.r, which a matrix product gives fast but rounds at small distances; the
    distances of the best are then computed from differences.

    Returns:
        distances (n, k) and positions in the pool (n, k), nearest first; infinite and -1 where there are no k others.
    """
    k, wide = min(neighbours, len(pool.ids)), min(neighbours + SPARE, len(pool.ids))
    codes = pd.factorize(np.concatenate([queries.persons, pool.persons]))[0]
    own, others = torch.from_numpy(codes[: len(queries.ids)]), torch.from_numpy(codes[len(queries.ids) :])
    norms = torch.cat([block.square().sum(1) for _, block in pool.blocks()])
    distances, positions = [], []
    for part, query in queries.blocks():
        best = torch.full((len(query), 0), torch.inf)
        index = torch.zeros((len(query), 0), dtype=torch.long)
        for at, reference in pool.blocks():
            gap = norms[at] - 2 * query @ reference.T  # (q, r), less |q|^2, which does not change the order
            gap[own[part][:, None] == others[at][None, :]] = torch.inf
            index = torch.cat([index, torch.arange(at.start, at.stop).expand(len(query), -1)], dim=1)
            best, order = torch.cat([best, gap], dim=1).topk(min(wide, index.shape[1]), dim=1, largest=False)
            index = index.gather(1, order)
        exact = torch.stack([(pool.values[i].float() - q).norm(dim=1) for i, q in zip(index, query, strict=True)])
        exact[best.isinf()] = torch.inf
        found, order = exact.topk(k, dim=1, largest=False)
        distances.append(found)
        positions.append(index.gather(1, order).where(found.isfinite(), torch.tensor(-1)))
    return torch.cat(distances).numpy(), torch.cat(positions).numpy()


def run_memorization(
    metadata: pd.DataFrame,
    results: str | Path,
    generated: str | Path,
    tokenizer: str | Path,
    settings: MemorizationSettings,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Audit generated volumes against the training scans.

    Returns:
        Rows of the results table (`table` memorization, `task` the comparison), and a row for each generated volume and
        neighbour: `volume_id, arm, rank, neighbour, distance, copy_ratio, under_p5`.

    Raises:
        BrainG3NError: latents are missing or another tokenizer's, or fewer than two persons were trained on.
    """
    model, made_by = load_tokenizer(tokenizer), sha256_of(Path(tokenizer) / WEIGHTS)
    real = real_latents(metadata, results, model, made_by)
    train = real.subset(np.flatnonzero((metadata["split"] == "train").to_numpy()))
    held_out = real.subset(np.flatnonzero((metadata["split"] != "train").to_numpy()))
    if len(np.unique(train.persons)) < 2:
        raise BrainG3NError("fewer than two persons were trained on", file="metadata", found=f"{len(train.ids)} scans")
    samples, arms = generated_latents(Path(generated), model, made_by)
    logger.info("%d generated, %d training, %d held-out latents", len(samples.ids), len(train.ids), len(held_out.ids))

    reference = nearest(train, train, settings.neighbours)[0]
    p5 = float(np.percentile(finite(reference[:, 0]), 5))
    rows = summary("training vs training", reference, p5, train)
    if len(held_out.ids):
        rows += summary("held-out vs training", nearest(held_out, train, settings.neighbours)[0], p5, held_out)
    found, positions = nearest(samples, train, settings.neighbours)
    rows += summary("generated vs training", found, p5, samples)
    ratio = finite(found[:, 0]).mean() / finite(reference[:, 0]).mean()
    rows.append({"task": "generated vs training", "metric": "ratio_to_training", "value": float(ratio)})
    rows += controls(train, p5, settings)
    rows += two_sample_rows(samples, train, settings)
    table = results_table({"table": "memorization", "slice": "pooled"} | row for row in rows)
    return table, pairs_table(samples, arms, found, positions, train, p5)


@torch.no_grad()
def real_latents(metadata: pd.DataFrame, results: str | Path, model: Tokenizer, made_by: str) -> Latents:
    latents = LatentFeed(metadata, results, made_by).latents
    values = normalised(latents, model)
    return Latents(values, metadata["volume_id"].to_numpy(), metadata["person_id"].to_numpy())


def generated_latents(folder: Path, model: Tokenizer, made_by: str) -> tuple[Latents, np.ndarray]:
    """Latents of all arms, each sample a person of its own, and the arm of each."""
    values, ids, arms = [], [], []
    for file in sorted(folder.glob("*.safetensors")):
        rows, latents = read_latents(file, made_by)
        rows = rows.sort_values()
        values.append(normalised(latents[torch.tensor(rows.to_numpy())], model))
        ids += rows.index.tolist()
        arms += [file.stem] * len(rows)
    if not ids:
        raise BrainG3NError("holds no generated latents", file=folder, remedy="run the rule generate")
    names = np.array(ids, dtype=object)
    return Latents(torch.cat(values), names, names), np.array(arms, dtype=object)


@torch.no_grad()
def normalised(latents: Tensor, model: Tokenizer) -> Tensor:
    """Raw (n, N, L) float16 -> normalised (n, N L) float16."""
    result = torch.empty(len(latents), latents[0].numel(), dtype=torch.float16)
    for start in range(0, len(latents), BLOCK):
        part = slice(start, start + BLOCK)
        result[part] = model.normalise(latents[part].float()).flatten(1).half()
    return result


def summary(task: str, distances: np.ndarray, p5: float, queries: Latents) -> list[dict[str, Any]]:
    """Distribution of nearest distances, the share under the training scans' own 5th percentile, the copy ratio."""
    first = finite(distances[:, 0])
    ratios = copy_ratio(distances)
    common = {"task": task, "n_subjects": len(np.unique(queries.persons)), "n_scans": len(queries.ids)}
    values = {
        "mean": first.mean(),
        "median": np.median(first),
        "p5": np.percentile(first, 5),
        "min": first.min(),
        "max": first.max(),
        "fraction_under_p5": float((first < p5).mean()),
        "copy_ratio_min": np.nanmin(ratios) if np.isfinite(ratios).any() else np.nan,
    }
    return [common | {"metric": name, "value": float(value)} for name, value in values.items()]


def finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def copy_ratio(distances: np.ndarray) -> np.ndarray:
    """Nearest distance over the mean of the next (Carlini et al. 2023): well below 1 for a copy. (n, k) -> (n,)."""
    others = np.where(np.isfinite(distances[:, 1:]), distances[:, 1:], np.nan)
    known = np.isfinite(others).any(1)
    result = np.full(len(distances), np.nan)
    result[known] = distances[known, 0] / np.nanmean(others[known], axis=1)
    return result


def controls(train: Latents, p5: float, settings: MemorizationSettings) -> list[dict[str, Any]]:
    """Noisy copies of training latents, which an audit with any power detects: the share under the 5th percentile."""
    random = np.random.default_rng(settings.seed)
    chosen = random.choice(len(train.ids), min(CONTROLS, len(train.ids)), replace=False)
    rows = []
    for noise in CONTROL_NOISE:
        draw = torch.Generator().manual_seed(settings.seed)
        values = train.values[torch.from_numpy(chosen)].float()
        copies = values + noise * torch.randn(values.shape, generator=draw)
        names = np.array([f"copy {i}" for i in range(len(chosen))], dtype=object)
        distances, positions = nearest(Latents(copies.half(), names, names), train, settings.neighbours)
        common = {"task": f"positive control, noise {noise:g}", "n_scans": len(chosen)}
        rows += [
            common | {"metric": "fraction_under_p5", "value": float((distances[:, 0] < p5).mean())},
            common | {"metric": "found_source", "value": float((positions[:, 0] == chosen).mean())},
            common | {"metric": "mean", "value": float(distances[:, 0].mean())},
            common | {"metric": "copy_ratio_max", "value": float(np.nanmax(copy_ratio(distances), initial=-np.inf))},
        ]
    return rows


def two_sample_rows(samples: Latents, train: Latents, settings: MemorizationSettings) -> list[dict[str, Any]]:
    """1-nearest-neighbour two-sample test (Lopez-Paz and Oquab 2017) with as many training scans, one a person."""
    random = np.random.default_rng(settings.seed)
    persons = random.permutation(np.unique(train.persons))
    one_each = np.array([np.flatnonzero(train.persons == person)[0] for person in persons[: len(samples.ids)]])
    chosen = random.permutation(len(samples.ids))[: len(one_each)]
    real, made = train.subset(one_each), samples.subset(chosen)
    both = Latents(
        torch.cat([made.values, real.values]),
        np.concatenate([made.ids, real.ids]),
        np.concatenate([made.persons, real.persons]),
    )
    labels = np.repeat([True, False], [len(chosen), len(one_each)])
    accuracy, p = nearest_neighbour_test(nearest(both, both, 1)[1][:, 0], labels, settings.permutations, random)
    common = {"task": "generated vs training, two-sample test", "n_scans": len(labels)}
    return [common | {"metric": "accuracy", "value": accuracy}, common | {"metric": "p_value", "value": p}]


def nearest_neighbour_test(
    neighbour: np.ndarray, labels: np.ndarray, permutations: int, random: np.random.Generator
) -> tuple[float, float]:
    """Accuracy of guessing an item's set from its nearest neighbour's, and its two-sided permutation p-value.

    1/2 when the sets are alike, towards 1 when they lie apart, towards 0 when one copies the other.
    """
    accuracy = float((labels[neighbour] == labels).mean())
    shuffled = np.array([random.permutation(labels) for _ in range(permutations)])
    null = (shuffled[:, neighbour] == shuffled).mean(1) if permutations else np.empty(0)
    centre = null.mean() if permutations else 0.5
    extreme = np.abs(null - centre) >= abs(accuracy - centre) - 1e-12
    return accuracy, float((1 + extreme.sum()) / (1 + permutations))


def pairs_table(
    samples: Latents, arms: np.ndarray, distances: np.ndarray, positions: np.ndarray, train: Latents, p5: float
) -> pd.DataFrame:
    """A row for each generated volume and neighbour."""
    n, k = distances.shape
    table = pd.DataFrame(
        {
            "volume_id": np.repeat(samples.ids, k),
            "arm": np.repeat(arms, k),
            "rank": np.tile(np.arange(1, k + 1), n),
            "neighbour": train.ids[positions.ravel()],
            "distance": distances.ravel().astype(float),
            "copy_ratio": np.repeat(copy_ratio(distances), k).astype(float),
            "under_p5": np.repeat(distances[:, 0] < p5, k),
        }
    )
    text = ["volume_id", "arm", "neighbour"]
    return table[np.isfinite(table["distance"])].astype(dict.fromkeys(text, "str")).reset_index(drop=True)
