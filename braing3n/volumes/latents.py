"""The latent cache: token latents of every stored volume, one safetensors file a shard (docs/data-contract.md).

Cached latents are raw, as projected; `Tokenizer.normalise` is applied where they are used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from braing3n.errors import BrainG3NError
from braing3n.files import atomic_path, read_parquet, write_parquet

REMEDY = "run the rule `encode` again for this cohort (braing3n latents encode)"


def save_latents(path: str | Path, latents: Tensor, tokenizer_sha256: str) -> None:
    """Write raw latents (n, N, L) as float16, with the hash of the tokenizer's weights.

    Raises:
        BrainG3NError: a latent is not finite in float16.
    """
    half = latents.to(torch.float16).cpu().contiguous()
    bad = torch.nonzero(~half.isfinite().flatten(1).all(dim=1)).flatten().tolist()
    if bad:
        raise BrainG3NError("latents are not finite in float16", file=path, found=f"rows {bad[:5]}")
    with atomic_path(path) as temporary:
        save_file({"latents": half}, str(temporary), metadata={"tokenizer_sha256": tokenizer_sha256})


def write_latents(path: str | Path, volume_ids: list[str], latents: Tensor, tokenizer_sha256: str) -> None:
    """`save_latents`, then the table of ids beside it."""
    save_latents(path, latents, tokenizer_sha256)
    ids = pd.DataFrame({"volume_id": volume_ids, "row": np.arange(len(volume_ids))})
    write_parquet(Path(path).with_suffix(".parquet"), ids.astype({"volume_id": "str", "row": "int64"}))


def read_latents(path: str | Path, tokenizer_sha256: str) -> tuple[pd.Series, Tensor]:
    """Latents of a shard, or of a generated arm, whose files have the same form.

    Returns:
        rows by volume_id, and latents (n, N, L) float16.

    Raises:
        BrainG3NError: a file is missing or damaged, or another tokenizer's weights made the latents.
    """
    path = Path(path)
    if not path.exists():
        raise BrainG3NError("latents are missing", file=path, remedy=REMEDY)
    ids = read_parquet(path.with_suffix(".parquet"))
    try:
        with safe_open(str(path), framework="pt") as content:
            made_by = (content.metadata() or {}).get("tokenizer_sha256")
            latents = content.get_tensor("latents")
    except SafetensorError as error:
        raise BrainG3NError("is not a whole safetensors file", file=path, found=str(error), remedy=REMEDY) from error
    if made_by != tokenizer_sha256:
        raise BrainG3NError(
            "latents are another tokenizer's",
            file=path,
            expected=f"weights {tokenizer_sha256[:12]}",
            found=f"weights {str(made_by)[:12]}",
            remedy=REMEDY,
        )
    return ids.set_index("volume_id")["row"], latents


class LatentFeed:
    """Latents of the rows of a table of metadata, all in memory: 77 kB a volume, 2.6 GB for 33,639.

    Args:
        metadata: rows with `volume_id, cohort, shard`; the feed's positions are theirs.
        results: folder with `latents/`.
        tokenizer_sha256: hash of the tokenizer's weights file, which must have made the latents.

    Raises:
        BrainG3NError: latents are missing, damaged, another tokenizer's, or do not cover the rows.
    """

    def __init__(self, metadata: pd.DataFrame, results: str | Path, tokenizer_sha256: str):
        self.latents = torch.empty(0)
        shards = metadata.reset_index(drop=True).groupby(["cohort", "shard"], sort=True)
        for (cohort, shard), part in shards:
            path = Path(results) / "latents" / cohort / f"{shard}.safetensors"
            rows, latents = read_latents(path, tokenizer_sha256)
            absent = set(part["volume_id"]) - set(rows.index)
            if absent:
                raise BrainG3NError(
                    f"lacks {len(absent)} of {len(part)} volumes of the metadata",
                    file=path,
                    found=f"no {', '.join(sorted(absent)[:3])}",
                    remedy=REMEDY,
                )
            if not len(self.latents):
                self.latents = torch.empty(len(metadata), *latents.shape[1:], dtype=torch.float16)
            self.latents[part.index.tolist()] = latents[rows.loc[part["volume_id"]].tolist()]

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, indices: np.ndarray, device: torch.device | str) -> Tensor:
        """Positions -> raw latents (B, N, L), float32 on the device."""
        return self.latents[torch.as_tensor(indices)].to(device).float()
