"""Every encoder by name, and how it is made. Imports no torch, so that the workflow can ask it what needs encoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from braing3n.encoders.publications import MEDICALNET_DEPTHS, PUBLICATIONS
from braing3n.errors import BrainG3NError

if TYPE_CHECKING:
    from braing3n.encoders.protocol import Encoder

Make = Callable[[Path, "Path | None", str], "Encoder"]


def _mae(mae: Path, weights: Path | None, device: str) -> Encoder:
    from braing3n.encoders.ours import MAEEncoder

    return MAEEncoder.load(mae, device)


def _untrained(mae: Path, weights: Path | None, device: str) -> Encoder:
    from braing3n.encoders.ours import MAEEncoder

    return MAEEncoder.untrained(mae, device)


def _pca(mae: Path, weights: Path | None, device: str) -> Encoder:
    from braing3n.encoders.ours import BlockIntensities

    return BlockIntensities()


def _regions(mae: Path, weights: Path | None, device: str) -> Encoder:
    from braing3n.encoders.regions import RegionalVolumes

    return RegionalVolumes()


def _published(name: str, **arguments: int | str | bool) -> Make:
    def make(mae: Path, weights: Path | None, device: str) -> Encoder:
        from braing3n.encoders import published

        return getattr(published, name)(weights, device, **arguments)

    return make


PUBLISHED: dict[str, tuple[str, dict[str, int | str]]] = {  # name: class in published.py and its arguments
    "brainiac": ("BrainIAC", {}),
    "brainiac-v1": ("BrainIACv1", {}),
    "brainsegfounder": ("BrainSegFounder", {}),
    "brainsegfounder-first": ("BrainSegFounder", {"channels": "first"}),
    "autoencoder-kl": ("AutoencoderKL", {}),
    **{f"medicalnet-{depth}": ("MedicalNet", {"depth": depth}) for depth in MEDICALNET_DEPTHS},
}
UNTRAINED = "-untrained"

ENCODERS: dict[str, Make] = {
    "mae": _mae,
    "untrained": _untrained,
    "pca": _pca,
    "regions": _regions,
    **{name: _published(cls, **arguments) for name, (cls, arguments) in PUBLISHED.items()},
    **{name + UNTRAINED: _published(cls, untrained=True, **arguments) for name, (cls, arguments) in PUBLISHED.items()},
}

# The untrained AutoencoderKL takes its architecture from the card beside the trained one.
NEEDS_WEIGHTS = frozenset(PUBLISHED) | {"autoencoder-kl" + UNTRAINED}


def weights_needed(source: str) -> str | None:
    """Of a source whose encoder needs a file of weights, what to do to have it: where it is published and under which
    licence. None for every other source.
    """
    encoder = encoder_of(source)
    if encoder not in NEEDS_WEIGHTS:
        return None
    return PUBLICATIONS[encoder.removesuffix(UNTRAINED)].remedy


def encoder_of(source: str) -> str | None:
    """The encoder whose table `features/<encoder>` a source of probe features reads: `mae` of `mae-brain`; None for
    sources that need no pass over the volumes.
    """
    base = source.rpartition("-")[0]
    return source if source in ENCODERS else base if base in ENCODERS else None


def needs_mae(name: str) -> bool:
    """Whether an encoder is, or takes its shape from, the trained MAE."""
    return name in ("mae", "untrained")


def made_from(name: str, mae: str | Path, weights: str | Path | None = None) -> list[Path]:
    """Files that an encoder's features depend on, beside the volumes."""
    own = {"mae": [Path(mae) / "model.safetensors"], "untrained": [Path(mae) / "card.json"]}
    return own.get(name, [Path(weights)] if weights else [])


def load_encoder(name: str, mae: str | Path, weights: str | Path | None = None, device: str = "cpu") -> Encoder:
    """Make an encoder.

    Args:
        mae: folder of the trained MAE, which `mae` is and `untrained` takes its shape from.
        weights: file of the encoder's own weights, where it needs one.

    Raises:
        BrainG3NError: no such encoder, or its weights are missing or do not fit.
    """
    if name not in ENCODERS:
        raise BrainG3NError(
            f"there is no encoder '{name}'", expected=", ".join(ENCODERS), remedy="see docs/encoders.md"
        )
    return ENCODERS[name](Path(mae), Path(weights) if weights else None, device)
