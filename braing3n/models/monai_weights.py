"""Weights of MONAI's `MaskedAutoEncoderViT` into our `MaskedAutoencoder` and back, exact by renaming.

The paper's widths, and earlier code by its authors, point to that class; so released weights will very likely carry
its names. What differs: MONAI embeds patches with a convolution, which is the same linear map; it always has a cls
token; it keeps its last norm as one more item of the list of blocks; from 1.6 on every block holds an unused
`norm_cross_attn`, and before that an unused `cross_attn` as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from braing3n.config.models import MAEArchitecture
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of
from braing3n.geometry import PATCH_SIZE, VOLUME_SHAPE
from braing3n.models.mae import MaskedAutoencoder, mae_card_architecture
from braing3n.models.weights import compare_keys, load_state, save_model

# MONAI's name -> ours, outside and inside of a block.
TOP = {
    "cls_token": "cls_token",
    "mask_tokens": "mask_token",
    "patch_embedding.patch_embeddings.weight": "embed.weight",
    "patch_embedding.patch_embeddings.bias": "embed.bias",
    "patch_embedding.position_embeddings": "positions",
    "decoder_embed.weight": "decoder_embed.weight",
    "decoder_embed.bias": "decoder_embed.bias",
    "decoder_pos_embedding": "decoder_positions",
    "decoder_pred.weight": "head.weight",
    "decoder_pred.bias": "head.bias",
}
INSIDE = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "attention.qkv",
    "attn.out_proj": "attention.out",
    "mlp.linear1": "mlp.0",
    "mlp.linear2": "mlp.2",
}
BLOCK = re.compile(r"(decoder_)?blocks\.(\d+)\.(?:(.+)\.)?(weight|bias)")
DEAD = re.compile(r"(decoder_)?blocks\.\d+\.(norm_cross_attn|cross_attn)\.")
PREFIXES = ("module.", "model.", "net.")
PERCEPTRON = "patch_embedding.patch_embeddings.1."  # MONAI's other patch embedding, a linear map in a Sequential


def monai_architecture(state: Mapping[str, Tensor], heads: int = 16, decoder_heads: int = 16) -> MAEArchitecture:
    """Widths and depths read from a MONAI state dict; the number of heads leaves no trace in it and is given."""
    try:
        hidden, decoder_hidden = state["cls_token"].shape[-1], state["mask_tokens"].shape[-1]
        return MAEArchitecture(
            hidden=hidden,
            depth=_last_index(state, ""),
            heads=heads,
            mlp=len(state["blocks.0.mlp.linear1.weight"]),
            decoder_hidden=decoder_hidden,
            decoder_depth=_last_index(state, "decoder_"),
            decoder_heads=decoder_heads,
            decoder_mlp=len(state["decoder_blocks.0.mlp.linear1.weight"]),
            cls_token=True,
            qkv_bias="blocks.0.attn.qkv.bias" in state,
        )
    except KeyError as error:
        raise BrainG3NError(
            "is no MONAI MaskedAutoEncoderViT state dict",
            expected=f"the key {error}",
            found=", ".join(list(state)[:6]),
        ) from error


def from_monai(
    state: Mapping[str, Tensor],
    *,
    heads: int = 16,
    decoder_heads: int = 16,
    volume_shape: tuple[int, int, int] = VOLUME_SHAPE,
    patch: int = PATCH_SIZE,
) -> MaskedAutoencoder:
    """Build our model from a MONAI state dict. Every key must find its place; only the unused ones are left out.

    The order of voxels in a predicted patch is the one that the weights were trained with: MONAI defines none.

    Raises:
        BrainG3NError: keys are missing, unknown or of another shape; the message lists them.
    """
    state = {_without_prefix(key): value for key, value in state.items() if not DEAD.match(_without_prefix(key))}
    state = {key.replace(PERCEPTRON, "patch_embedding.patch_embeddings."): value for key, value in state.items()}
    arch = monai_architecture(state, heads, decoder_heads)
    model = MaskedAutoencoder(arch, volume_shape, patch)
    ours = {}
    for key, value in state.items():
        name = _our_name(key, arch)
        if name in ("positions", "decoder_positions"):
            value = value[0]  # (1, N, D) -> (N, D)
        elif name == "embed.weight":
            value = value.flatten(1)  # (D, 1, p, p, p) -> (D, p^3)
        ours[name] = value
    report = compare_keys(model.state_dict(), ours)
    if not report.matches:
        raise BrainG3NError("MONAI weights do not fit", found=str(report), remedy="check volume shape and patch size")
    model.load_state_dict(ours)
    return model


def to_monai(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """A state dict that `MaskedAutoEncoderViT` of MONAI 1.6 loads strictly (convolution patch embedding).

    Raises:
        BrainG3NError: the model has no cls token, which MONAI's always has.
    """
    if model.cls_token is None:
        raise BrainG3NError("MONAI's class always has a cls token", found="a model trained with cls_token: false")
    ours = model.state_dict()
    patch = model.patch
    state = {theirs: ours[name] for theirs, name in TOP.items()}
    state["patch_embedding.position_embeddings"] = ours["positions"][None]
    state["decoder_pos_embedding"] = ours["decoder_positions"][None]
    state["patch_embedding.patch_embeddings.weight"] = ours["embed.weight"].reshape(-1, 1, patch, patch, patch)
    for part, depth in (("", model.arch.depth), ("decoder_", model.arch.decoder_depth)):
        for i in range(depth):
            for theirs, name in INSIDE.items():
                for kind in ("weight", "bias"):
                    if f"{part}blocks.{i}.{name}.{kind}" in ours:
                        state[f"{part}blocks.{i}.{theirs}.{kind}"] = ours[f"{part}blocks.{i}.{name}.{kind}"]
            width = ours[f"{part}norm.weight"]
            state[f"{part}blocks.{i}.norm_cross_attn.weight"] = torch.ones_like(width)
            state[f"{part}blocks.{i}.norm_cross_attn.bias"] = torch.zeros_like(width)
        for kind in ("weight", "bias"):
            state[f"{part}blocks.{depth}.{kind}"] = ours[f"{part}norm.{kind}"]
    return state


def read_monai_file(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a torch checkpoint without running any code from it.

    A checkpoint may hold the state dict itself or under `state_dict` or `model`.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_state(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BrainG3NError(
            "cannot be read without running code from it",
            file=path,
            found=str(error).splitlines()[0][:200],
            remedy="convert it to safetensors where you trust it",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def import_monai_file(path: str | Path, out: str | Path, heads: int = 16, decoder_heads: int = 16) -> None:
    """Write a model folder from a file of MONAI weights; the card names the file and its hash."""
    model = from_monai(read_monai_file(path), heads=heads, decoder_heads=decoder_heads)
    card = {
        "name": "mae",
        "architecture": mae_card_architecture(model),
        "settings": {"source": Path(path).name, "source_sha256": sha256_of(path)},
        "data_hash": None,
        "metrics": {},
        "checks": [],
    }
    save_model(model, card, out)


def _our_name(key: str, arch: MAEArchitecture) -> str:
    if key in TOP:
        return TOP[key]
    match = BLOCK.fullmatch(key)
    if match is None:
        return key  # unknown: the key report names it
    part, index, inside, kind = match[1] or "", int(match[2]), match[3], match[4]
    if inside is None and index == (arch.decoder_depth if part else arch.depth):
        return f"{part}norm.{kind}"
    return f"{part}blocks.{index}.{INSIDE.get(inside, inside)}.{kind}"


def _without_prefix(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _last_index(state: Mapping[str, Tensor], part: str) -> int:
    """Index of the last norm in MONAI's list of blocks, which is the depth."""
    return max((int(m[2]) for m in map(BLOCK.fullmatch, state) if m and (m[1] or "") == part), default=0)
