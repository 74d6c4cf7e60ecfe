"""Adapters of published encoders: BrainIAC (two incompatible releases), MedicalNet, BrainSegFounder, AutoencoderKL.

Each takes intensities on the SRI24 grid to the input its network was trained with. Where that cannot be reproduced on
registered, skull-stripped volumes, the docstring says what is done instead. `untrained` makes the network's control:
the same architecture and preprocessing, with fresh weights from a fixed seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braing3n.encoders.checkpoints import load_strictly, open_checkpoint, under_prefix
from braing3n.encoders.protocol import FRESH, TWIN_SEED, z_score_brain
from braing3n.encoders.publications import PUBLICATIONS
from braing3n.encoders.resnet import Layout, ResNet3d
from braing3n.encoders.vit import ViT3d
from braing3n.errors import BrainG3NError
from braing3n.files import read_json
from braing3n.training.seeds import seeded

State = Mapping[str, Tensor]


def resized(volumes: Tensor, side: int) -> Tensor:
    """Trilinear to a cube, aspect not kept. (B, 1, X, Y, Z) -> (B, 1, side, side, side)."""
    return F.interpolate(volumes, (side,) * 3, mode="trilinear", align_corners=False)


class Published:
    """What the adapters share: a frozen network with the terms it is published under.

    Args:
        name: as in `PUBLICATIONS`.
        build: makes the network; it is given the published weights, or None when there are none to look at.
        weights: file of the weights; not opened for the untrained control.
        prefixes, heads: of the published keys, as `under_prefix` and `load_strictly` take them.

    Raises:
        BrainG3NError: the weights are missing (with where they are published) or do not fit.
    """

    network: nn.Module
    dimension: int
    poolings: tuple[str, ...]

    def __init__(
        self,
        name: str,
        build: Callable[[State | None], nn.Module],
        weights: Path | None,
        device: str,
        untrained: bool,
        prefixes: tuple[str, ...] = (),
        heads: tuple[str, ...] = (),
    ):
        publication = PUBLICATIONS[name]
        self.name = f"{name}-untrained" if untrained else name
        self.licence, self.citation = publication.licence, publication.citation
        state = None if untrained else under_prefix(open_checkpoint(weights, publication), prefixes)
        with seeded(TWIN_SEED):
            network = build(state)
        self.keys = FRESH if state is None else str(load_strictly(network, state, weights, heads))
        self.network = network.to(device).eval().requires_grad_(False)


class BrainIAC(Published):
    """BrainIAC of 2026: ViT-B on 96^3, z-scored over non-zero voxels after resizing.

    Its published feature is the first patch's token, a corner of the volume that contrastive training was applied to;
    the mean of all tokens stands beside it.
    """

    poolings = ("first", "mean")

    def __init__(self, weights: Path | None, device: str = "cpu", untrained: bool = False, **sizes: int):
        prefixes, heads = ("backbone.backbone.", "backbone."), ("projection", "classification_head", "head.")
        super().__init__("brainiac", lambda _: ViT3d(**sizes), weights, device, untrained, prefixes, heads)
        self.dimension = self.network.hidden

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        small = resized(volumes, self.network.side)
        return z_score_brain(small, small != 0)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        tokens = self.network(batch)  # (B, 216, 768)
        return {"first": tokens[:, 0], "mean": tokens.mean(dim=1)}


class BrainIACv1(Published):
    """BrainIAC of the 2024 preprint: ResNet-50 on 128^3, intensities scaled to [0, 1]."""

    poolings = ("mean",)

    def __init__(self, weights: Path | None, device: str = "cpu", untrained: bool = False):
        layout = Layout(50, dilated=False, projection_bias=True)
        prefixes, heads = ("backbone.",), ("fc.", "projection")
        super().__init__("brainiac-v1", lambda _: ResNet3d(layout), weights, device, untrained, prefixes, heads)
        self.dimension = self.network.channels

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        small = resized(volumes, 128)
        low, high = small.amin(dim=(1, 2, 3, 4), keepdim=True), small.amax(dim=(1, 2, 3, 4), keepdim=True)
        return (small - low) / (high - low).clamp(min=1e-12)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        return {"mean": self.network(batch).mean(dim=(2, 3, 4))}


class MedicalNet(Published):
    """MedicalNet (Med3D) ResNets, dilated, stride 8; features are the mean over the last map.

    Volumes are z-scored over the brain at 1 mm and keep a background of 0: the original fills it with noise, which
    would make features random.
    """

    poolings = ("mean",)

    def __init__(self, weights: Path | None, device: str = "cpu", untrained: bool = False, depth: int = 50):
        layout = Layout(depth, dilated=True, projection=depth not in (18, 34))
        name, prefixes, heads = f"medicalnet-{depth}", ("module.",), ("conv_seg.",)
        super().__init__(name, lambda _: ResNet3d(layout), weights, device, untrained, prefixes, heads)
        self.dimension = self.network.channels

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        return z_score_brain(volumes, brain)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        return {"mean": self.network(batch).mean(dim=(2, 3, 4))}


class BrainSegFounder(Published):
    """BrainSegFounder: Swin transformer of its self-supervised stage; mean over the deepest tokens (5 x 6 x 5).

    It was trained on scanner intensities mapped from [-1000, 1000] to [0, 1]; the brain's 99.5 percentile is set to
    1000 here, so that background is 0.5 as it was there. The pre-training on UK Biobank has two channels, T1 and T2:
    a single contrast is repeated into both (`repeat`) or put into the first with 0.5 in the other (`first`). Releases
    with other numbers of channels or blocks are recognised by their weights.
    """

    poolings = ("mean",)

    def __init__(
        self, weights: Path | None, device: str = "cpu", untrained: bool = False, channels: str = "repeat", **sizes
    ):
        if channels not in ("repeat", "first"):
            raise BrainG3NError(f"channels '{channels}'", expected="repeat or first")
        name = "brainsegfounder" if channels == "repeat" else "brainsegfounder-first"

        def build(state: State | None) -> nn.Module:
            if state is not None and "patch_embed.proj.weight" not in state:
                raise BrainG3NError("holds no Swin transformer", file=weights, found=", ".join(sorted(state)[:3]))
            return swin(2, **sizes) if state is None else swin(inputs_of(state), **{"depths": depths_of(state)} | sizes)

        super().__init__(name, build, weights, device, untrained, ("module.swinViT.", "swinViT."))
        self.channels, self.inputs = channels, self.network.patch_embed.in_chans
        self.dimension = self.network.embed_dim * 16

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        top = [v[b].quantile(0.995) if b.any() else v.new_ones(()) for v, b in zip(volumes, brain, strict=True)]
        scaled = (0.5 + 0.5 * volumes / torch.stack(top).view(-1, 1, 1, 1, 1)).clamp(0, 1)
        if self.channels == "repeat":
            return scaled.expand(-1, self.inputs, -1, -1, -1)
        return torch.cat([scaled, torch.full_like(scaled, 0.5).expand(-1, self.inputs - 1, -1, -1, -1)], dim=1)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        return {"mean": self.network(batch)[4].mean(dim=(2, 3, 4))}


def inputs_of(state: State) -> int:
    """Channels that a Swin transformer's weights expect."""
    return state["patch_embed.proj.weight"].shape[1]


def depths_of(state: State) -> tuple[int, ...]:
    """Blocks in each of a Swin transformer's four stages, from the names of its weights."""
    found = {tuple(map(int, m.groups())) for k in state if (m := re.match(r"layers(\d)\.0\.blocks\.(\d+)\.", k))}
    return tuple(sum(layer == stage for layer, _ in found) for stage in range(1, 5))


def swin(channels: int, *, embed: int = 48, window: int = 7, depths=(2, 2, 2, 2), heads=(3, 6, 12, 24)) -> nn.Module:
    """MONAI's Swin transformer, whose parameter names the published weights have."""
    try:
        from monai.networks.nets.swin_unetr import SwinTransformer
    except ImportError as error:
        raise BrainG3NError("BrainSegFounder needs MONAI", remedy="pip install 'braing3n[peers]'") from error
    network = SwinTransformer(
        in_chans=channels,
        embed_dim=embed,
        window_size=(window,) * 3,
        patch_size=(2, 2, 2),
        depths=depths,
        num_heads=heads,
    )
    network.patch_embed.in_chans = channels
    return network


class AutoencoderKL(Published):
    """The paper's generative baseline: mean over positions of the latents of MONAI's AutoencoderKL.

    The architecture stands in `card.json` beside the weights, as keyword arguments of MONAI's class; the untrained
    control reads it from there too.
    """

    poolings = ("mean",)

    def __init__(self, weights: Path | None, device: str = "cpu", untrained: bool = False):
        publication = PUBLICATIONS["autoencoder-kl"]

        def build(state: State | None) -> nn.Module:
            card = weights.with_name("card.json") if weights else None
            if card is None or not card.exists():
                raise BrainG3NError(
                    "the architecture of autoencoder-kl is missing", file=card, remedy=publication.remedy
                )
            try:
                from monai.networks.nets import AutoencoderKL as Network
            except ImportError as error:
                raise BrainG3NError("AutoencoderKL needs MONAI", remedy="pip install 'braing3n[peers]'") from error
            return Network(**read_json(card)["architecture"])

        super().__init__("autoencoder-kl", build, weights, device, untrained)
        self.dimension = self.network.latent_channels

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        return z_score_brain(volumes, brain)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        mean, _ = self.network.encode(batch)  # (B, L, x, y, z)
        return {"mean": mean.mean(dim=(2, 3, 4))}
