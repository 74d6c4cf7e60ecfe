"""Adapters of published encoders: BrainIAC (two incompatible releases), MedicalNet, BrainSegFounder, AutoencoderKL.

Each takes intensities on the SRI24 grid to the input its network was trained with. Where that cannot be reproduced on
registered, skull-stripped volumes, the docstring says what is done instead.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braing3n.encoders.checkpoints import Publication, load_strictly, open_checkpoint, under_prefix
from braing3n.encoders.protocol import z_score_brain
from braing3n.encoders.resnet import Layout, ResNet3d
from braing3n.encoders.vit import ViT3d
from braing3n.errors import BrainG3NError
from braing3n.files import read_json

BRAINIAC = "https://github.com/AIM-KannLab/BrainIAC"


def resized(volumes: Tensor, side: int) -> Tensor:
    """Trilinear to a cube, aspect not kept. (B, 1, X, Y, Z) -> (B, 1, side, side, side)."""
    return F.interpolate(volumes, (side,) * 3, mode="trilinear", align_corners=False)


class Published:
    """What the adapters share: a frozen network with the terms it is published under."""

    publication: Publication
    network: nn.Module
    dimension: int
    poolings: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.publication.name

    @property
    def licence(self) -> str:
        return self.publication.licence

    @property
    def citation(self) -> str:
        return self.publication.citation

    def freeze(self, network: nn.Module, device: str) -> None:
        self.network = network.to(device).eval().requires_grad_(False)


class BrainIAC(Published):
    """BrainIAC of 2026: ViT-B on 96^3, z-scored over non-zero voxels after resizing.

    Its published feature is the first patch's token, a corner of the volume that contrastive training was applied to;
    the mean of all tokens stands beside it.
    """

    publication = Publication(
        "brainiac",
        "Tak et al. 2026, Nature Neuroscience",
        "non-commercial academic use",
        BRAINIAC,
        "BrainIAC.ckpt",
    )
    poolings = ("first", "mean")

    def __init__(self, weights: Path | None, device: str = "cpu", **sizes: int):
        state = under_prefix(open_checkpoint(weights, self.publication), ("backbone.backbone.", "backbone."))
        network = ViT3d(**sizes)
        load_strictly(network, state, weights, heads=("projection", "classification_head", "head."))
        self.freeze(network, device)
        self.dimension = network.hidden

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        small = resized(volumes, self.network.side)
        return z_score_brain(small, small != 0)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        tokens = self.network(batch)  # (B, 216, 768)
        return {"first": tokens[:, 0], "mean": tokens.mean(dim=1)}


class BrainIACv1(Published):
    """BrainIAC of the 2024 preprint: ResNet-50 on 128^3, intensities scaled to [0, 1]."""

    publication = Publication(
        "brainiac-v1", "Tak et al. 2024, preprint", "non-commercial academic use", BRAINIAC, "BrainIAC.ckpt of 2025"
    )
    poolings = ("mean",)

    def __init__(self, weights: Path | None, device: str = "cpu"):
        state = under_prefix(open_checkpoint(weights, self.publication), ("backbone.",))
        network = ResNet3d(Layout(50, dilated=False, projection_bias=True))
        load_strictly(network, state, weights, heads=("fc.", "projection"))
        self.freeze(network, device)
        self.dimension = network.channels

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

    def __init__(self, weights: Path | None, device: str = "cpu", depth: int = 50):
        file = f"resnet_{depth}_23dataset.pth" if depth in (10, 18, 34, 50) else f"resnet_{depth}.pth"
        self.publication = Publication(
            f"medicalnet-{depth}",
            "Chen et al. 2019, arXiv 1904.00625",
            "MIT",
            "https://github.com/Tencent/MedicalNet",
            file,
        )
        state = under_prefix(open_checkpoint(weights, self.publication), ("module.",))
        network = ResNet3d(Layout(depth, dilated=True, projection=depth not in (18, 34)))
        load_strictly(network, state, weights, heads=("conv_seg.",))
        self.freeze(network, device)
        self.dimension = network.channels

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        return z_score_brain(volumes, brain)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        return {"mean": self.network(batch).mean(dim=(2, 3, 4))}


class BrainSegFounder(Published):
    """BrainSegFounder: Swin transformer of its self-supervised stage; mean over the deepest tokens (5 x 6 x 5).

    It was trained on scanner intensities mapped from [-1000, 1000] to [0, 1]; the brain's 99.5 percentile is set to
    1000 here, so that background is 0.5 as it was there. The pre-training on UK Biobank has two channels, T1 and T2:
    a single contrast is repeated into both (`repeat`) or put into the first with 0.5 in the other (`first`).
    """

    publication = Publication(
        "brainsegfounder",
        "Cox et al. 2024, Medical Image Analysis",
        "code GPL-3.0; weights under UK Biobank's material transfer terms",
        "https://github.com/lab-smile/BrainSegFounder",
        "model_bestValRMSE.pt of the UKB stage",
    )
    poolings = ("mean",)

    def __init__(self, weights: Path | None, device: str = "cpu", channels: str = "repeat", **sizes):
        state = under_prefix(open_checkpoint(weights, self.publication), ("module.swinViT.", "swinViT."))
        if "patch_embed.proj.weight" not in state:
            raise BrainG3NError("holds no Swin transformer", file=weights, found=", ".join(sorted(state)[:3]))
        self.channels, self.inputs = channels, state["patch_embed.proj.weight"].shape[1]
        network = swin(self.inputs, **sizes)
        load_strictly(network, state, weights)
        self.freeze(network, device)
        self.dimension = network.embed_dim * 16

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        top = [v[b].quantile(0.995) if b.any() else v.new_ones(()) for v, b in zip(volumes, brain, strict=True)]
        scaled = (0.5 + 0.5 * volumes / torch.stack(top).view(-1, 1, 1, 1, 1)).clamp(0, 1)
        if self.channels == "repeat":
            return scaled.expand(-1, self.inputs, -1, -1, -1)
        return torch.cat([scaled, torch.full_like(scaled, 0.5).expand(-1, self.inputs - 1, -1, -1, -1)], dim=1)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        return {"mean": self.network(batch)[4].mean(dim=(2, 3, 4))}


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

    The architecture stands in `card.json` beside the weights, as keyword arguments of MONAI's class.
    """

    publication = Publication(
        "autoencoder-kl", "Rombach et al. 2022", "of its training", "your own training", "model.safetensors"
    )
    poolings = ("mean",)

    def __init__(self, weights: Path | None, device: str = "cpu"):
        state = open_checkpoint(weights, self.publication)
        try:
            from monai.networks.nets import AutoencoderKL as Network
        except ImportError as error:
            raise BrainG3NError("AutoencoderKL needs MONAI", remedy="pip install 'braing3n[peers]'") from error
        network = Network(**read_json(weights.with_name("card.json"))["architecture"])
        load_strictly(network, state, weights)
        self.freeze(network, device)
        self.dimension = network.latent_channels

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        return z_score_brain(volumes, brain)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        mean, _ = self.network.encode(batch)  # (B, L, x, y, z)
        return {"mean": mean.mean(dim=(2, 3, 4))}
