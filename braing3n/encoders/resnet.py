"""3D ResNets with the parameter names of MedicalNet and MONAI, strided or dilated.

MedicalNet keeps a stride of 8: its third and fourth stages dilate instead of striding (Chen et al. 2019, "Med3D").
MONAI's class of the same parameters strides them, which is another function of the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = {
    10: ("basic", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}


@dataclass(frozen=True)
class Layout:
    """What differs between the published networks.

    Attributes:
        dilated: stages 3 and 4 dilate by 2 and 4 instead of striding by 2.
        projection: shortcuts that change shape are 1x1x1 convolutions ("B"); otherwise they subsample and pad ("A").
        projection_bias: those convolutions have a bias.
    """

    depth: int
    dilated: bool
    projection: bool = True
    projection_bias: bool = False


def padded_shortcut(x: Tensor, channels: int, stride: int) -> Tensor:
    """Parameter-free shortcut: every `stride`-th voxel, new channels zero. (B, C, ...) -> (B, channels, ...)."""
    x = x[..., ::stride, ::stride, ::stride]
    return torch.cat([x, x.new_zeros(len(x), channels - x.shape[1], *x.shape[2:])], dim=1)


class ResidualBlock(nn.Module):
    """Basic (two 3^3 convolutions) or bottleneck (1, 3^3, 1) block. (B, C, ...) -> (B, planes x expansion, ...)."""

    def __init__(self, kind: str, channels: int, planes: int, stride: int, dilation: int, layout: Layout):
        super().__init__()
        out = planes * (4 if kind == "bottleneck" else 1)
        spatial = {"kernel_size": 3, "padding": dilation, "dilation": dilation, "bias": False}
        if kind == "basic":
            self.conv1 = nn.Conv3d(channels, planes, stride=stride, **spatial)
            self.bn1 = nn.BatchNorm3d(planes)
            self.conv2 = nn.Conv3d(planes, planes, **spatial)
            self.bn2 = nn.BatchNorm3d(planes)
        else:
            self.conv1 = nn.Conv3d(channels, planes, 1, bias=False)
            self.bn1 = nn.BatchNorm3d(planes)
            self.conv2 = nn.Conv3d(planes, planes, stride=stride, **spatial)
            self.bn2 = nn.BatchNorm3d(planes)
            self.conv3 = nn.Conv3d(planes, out, 1, bias=False)
            self.bn3 = nn.BatchNorm3d(out)
        self.kind, self.out, self.stride = kind, out, stride
        self.changes = stride != 1 or channels != out
        if self.changes and layout.projection:
            projection = nn.Conv3d(channels, out, 1, stride=stride, bias=layout.projection_bias)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(out))
        else:
            self.downsample = None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        if self.kind == "bottleneck":
            h = self.bn3(self.conv3(F.relu(h)))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.changes:
            x = padded_shortcut(x, self.out, self.stride)
        return F.relu(h + x)


class ResNet3d(nn.Module):
    """Stem of stride 4, four stages, no head. (B, 1, X, Y, Z) -> (B, C, x, y, z)."""

    def __init__(self, layout: Layout):
        super().__init__()
        kind, counts = DEPTHS[layout.depth]
        self.conv1 = nn.Conv3d(1, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        channels = 64
        for stage, (planes, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True), start=1):
            stride = 1 if stage == 1 or (layout.dilated and stage > 2) else 2
            # Only the first block of a stage dilates, as published.
            dilation = {3: 2, 4: 4}.get(stage, 1) if layout.dilated else 1
            blocks = []
            for position in range(count):
                first = position == 0
                block = ResidualBlock(kind, channels, planes, stride if first else 1, dilation if first else 1, layout)
                blocks.append(block)
                channels = block.out
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool3d(x, 3, stride=2, padding=1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x
