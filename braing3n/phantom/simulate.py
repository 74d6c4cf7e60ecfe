"""One head, one acquisition, one voxel grid -> one volume, with a single interpolation from the atlas."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from braing3n.phantom.anatomy import FIELD_MM, PADDED_AFFINE, Anatomy, to_padded
from braing3n.phantom.fields import bias_field, displacement, tumour_parts
from braing3n.phantom.truth import Grid, ScanTruth, SubjectTruth, Tumour

# Intensity by T1 intensity inside the brain (white matter 1, grey matter 0.73, cerebrospinal fluid 0.3), and what
# tumours and lesions show. T1 and T1c follow the atlas itself.
T1_KNOTS = (0.0, 0.22, 0.30, 0.45, 0.60, 0.73, 0.85, 1.00, 1.20)
TONES = {
    "T2": (1.00, 1.00, 0.97, 0.80, 0.60, 0.50, 0.42, 0.36, 0.32),
    "FLAIR": (0.05, 0.05, 0.08, 0.30, 0.52, 0.60, 0.56, 0.50, 0.46),
}
OUTSIDE = {"T1": 1.0, "T1c": 1.2, "T2": 0.55, "FLAIR": 0.5}  # scalp and bone, times T1
OUTER_CSF = {"T1": 0.0, "T1c": 0.05, "T2": 0.9, "FLAIR": 0.05}  # added to that
LESION = {"T1": 0.70, "T1c": 0.70, "T2": 0.70, "FLAIR": 0.95}
NECROSIS = {"T1": 0.38, "T1c": 0.38, "T2": 0.92, "FLAIR": 0.45}
RIM = {"T1": 0.75, "T1c": 1.60, "T2": 0.60, "FLAIR": 0.75}
OEDEMA = {"T1": 0.68, "T1c": 0.68, "T2": 0.85, "FLAIR": 0.98}
BRIGHTEST = {"T1": 1.0, "T1c": 1.0, "T2": 1.0, "FLAIR": 0.62}  # tissue that noise and gain refer to
STEPS = 1000  # resolution of the tone curve, per unit of T1
SAMPLE_MM = 1.25  # thicker voxels are averaged over samples about this far apart
SLAB_POINTS = 400_000


class Simulation(NamedTuple):
    volume: np.ndarray
    """Intensities, float32, shape of the grid."""
    affine: np.ndarray
    """Voxel -> the scan's RAS+ mm."""
    brain: np.ndarray
    """True brain mask, bool."""
    bias: np.ndarray
    """True multiplicative bias field, float32."""


def simulate(anatomy: Anatomy, subject: SubjectTruth, scan: ScanTruth, grid: Grid) -> Simulation:
    """Acquire `subject` as `scan` says on `grid`. The same arguments give the same bytes."""
    u = displacement(anatomy, subject)
    distance = anatomy.from_brain if scan.stripped else anatomy.from_head
    half_voxel = np.linalg.norm(nib.affines.voxel_sizes(subject.affine @ scan.motion @ grid.affine)) / 2
    near = distance <= _reach(u, distance) + half_voxel  # voxels that may show brain (head)
    box = _bounding_box(distance <= 2)
    image = torch.from_numpy(contrast(anatomy, subject, scan, box))
    brain = torch.from_numpy(anatomy.brain[box].astype(np.float32))
    to_atlas = np.linalg.inv(PADDED_AFFINE) @ subject.affine @ scan.motion @ grid.affine
    signal, inside = _resample((image, brain), box, torch.from_numpy(u), near, to_atlas, grid)
    mask = inside > 0.5
    bias = bias_field(grid.shape, scan.bias, scan.seed, mask)
    rng = np.random.default_rng((scan.seed, 1))
    sigma = scan.noise * BRIGHTEST[scan.modality]
    volume = np.zeros(grid.shape, np.float32)
    where = mask if scan.stripped else np.ones(grid.shape, bool)
    volume[where] = rician(signal[where] * bias[where], sigma, rng)
    return Simulation(volume * (scan.gain / BRIGHTEST[scan.modality]), grid.affine, mask, bias)


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of a signal with Gaussian noise of standard deviation `sigma` in both channels."""
    if sigma == 0:
        return signal
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.hypot(real, sigma * rng.standard_normal(signal.shape, dtype=np.float32))


def contrast(anatomy: Anatomy, subject: SubjectTruth, scan: ScanTruth, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Noise-free intensities of a modality in atlas space inside `box`, brightest tissue 1, float32."""
    modality = scan.modality
    brain, t1 = anatomy.brain[box], anatomy.t1[box]
    if subject.cortical_atrophy or subject.hippocampal_atrophy:
        t1 = t1 - np.float32(subject.cortical_atrophy) * anatomy.cortical[box]
        t1 -= np.float32(subject.hippocampal_atrophy) * anatomy.hippocampal[box]
    index = np.clip(t1 * STEPS, 0, 3 * STEPS - 1).astype(np.int16)
    result = _tone_curve(anatomy, modality, subject.contrast_loss)[index]
    if not scan.stripped:
        head = OUTSIDE[modality] * t1 + np.float32(OUTER_CSF[modality]) * anatomy.outer_csf[box]
        result = np.where(brain, result, head)
    if scan.defaced:
        result[anatomy.face[box]] = 0
    if subject.white_matter_lesions:
        extent = np.clip(3.0 * (anatomy.lesions[box].astype(np.float32) - 1 + subject.white_matter_lesions), 0, 1)
        result += extent * (LESION[modality] - result)
    if subject.tumour:
        _add_tumour(result, t1 * brain, subject.tumour, modality, box)
    return result if scan.gamma == 1 else np.power(np.maximum(result, 0), np.float32(scan.gamma))


def _tone_curve(anatomy: Anatomy, modality: str, contrast_loss: float) -> np.ndarray:
    """Intensity by T1 * STEPS."""
    t1 = np.arange(3 * STEPS) / STEPS
    if modality in TONES:
        return np.interp(t1, T1_KNOTS, TONES[modality]).astype(np.float32)
    _, grey, _ = anatomy.tissue
    return np.where(t1 > grey, grey + (t1 - grey) * (1 - 0.4 * contrast_loss), t1).astype(np.float32)


def _add_tumour(image: np.ndarray, t1: np.ndarray, tumour: Tumour, modality: str, box: tuple[slice, ...]) -> None:
    """Blend the tumour into `image` in place; `t1` is zero outside the brain."""
    reach = tumour.radius_mm * 1.8 + tumour.oedema_mm * 1.6 + 6
    centre = to_padded(tumour.centre) - np.array([edge.start for edge in box])
    low = np.clip((centre - reach).astype(int), 0, image.shape)
    high = np.clip((centre + reach).astype(int) + 1, 0, image.shape)
    local = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    starts = [a + edge.start for a, edge in zip(low, box, strict=True)]
    stops = [b + edge.start for b, edge in zip(high, box, strict=True)]
    points = np.stack(
        np.meshgrid(*[np.arange(a, b, dtype=float) for a, b in zip(starts, stops, strict=True)], indexing="ij")
    )
    core, rim, oedema = tumour_parts(tumour, points)
    inside = t1[local] > 0
    oedema = oedema * np.clip((t1[local] - 0.6) / 0.3, 0.0, 1.0)  # spreads along white matter
    rim_value = RIM["T1"] + tumour.enhancement * (RIM[modality] - RIM["T1"]) if modality == "T1c" else RIM[modality]
    part = image[local]
    for weight, value in ((oedema, OEDEMA[modality]), (rim, rim_value), (core, NECROSIS[modality])):
        part += (weight * inside * (value - part)).astype(np.float32)


def _reach(u: np.ndarray, distance: np.ndarray, within: int = 12) -> float:
    """Largest displacement, mm, of what lies no farther than `within` mm away, and the width of an atlas voxel."""
    close = distance[::FIELD_MM, ::FIELD_MM, ::FIELD_MM] <= within
    nearby = u[:, : close.shape[0], : close.shape[1], : close.shape[2]]
    return float(np.sqrt((nearby[:, close] ** 2).sum(axis=0).max())) + 1.5


def _bounding_box(wanted: np.ndarray) -> tuple[slice, slice, slice]:
    ranges = [np.flatnonzero(wanted.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(int(r[0]), int(r[-1]) + 1) for r in ranges)


def _resample(
    images: tuple[Tensor, ...],
    box: tuple[slice, slice, slice],
    field: Tensor,
    near: np.ndarray,
    to_atlas: np.ndarray,
    grid: Grid,
) -> list[np.ndarray]:
    """Linear interpolation of `images`, which cover `box` of the padded atlas, on the voxels of `grid` in `near`.

    `to_atlas` maps grid voxels to padded atlas voxels; the displacement comes on top. Thick voxels are averaged.
    """
    sizes = np.linalg.norm(grid.affine[:3, :3], axis=0)
    counts = [max(1, round(size / SAMPLE_MM)) for size in sizes]
    offsets = list(itertools.product(*[(np.arange(n) + 0.5) / n - 0.5 for n in counts]))
    results = [torch.zeros(grid.shape) for _ in images]
    matrix = torch.from_numpy(to_atlas).float()
    ranges = _grid_ranges(_bounding_box(near), to_atlas, grid.shape)
    first, *others = [torch.arange(r.start, r.stop)[:, None] * matrix[:3, axis] for axis, r in enumerate(ranges)]
    plane = (others[0][:, None] + others[1][None] + matrix[:3, 3]).reshape(1, -1, 3)  # points with first index 0
    rows = max(1, SLAB_POINTS // max(1, plane.shape[1]))
    wanted, corner = torch.from_numpy(near), torch.tensor([edge.start for edge in box])
    for start in range(0, len(first), rows):
        points = (first[start : start + rows, None] + plane).reshape(-1, 3)  # (n, 3)
        chosen = _lookup(wanted, points)
        if not chosen.any():
            continue
        points = points[chosen]
        values = [torch.zeros(len(points)) for _ in images]
        for offset in offsets:
            at = points + matrix[:3, :3] @ torch.tensor(offset, dtype=torch.float32)
            at = at + sample(field, at / FIELD_MM, border=True).T - corner
            for image, value in zip(images, values, strict=True):
                value += sample(image[None], at)[0]
        lowest = ranges[0].start + start
        slab = (slice(lowest, min(lowest + rows, ranges[0].stop)), ranges[1], ranges[2])
        for value, result in zip(values, results, strict=True):
            part = result[slab]
            part[chosen.view(part.shape)] = value / len(offsets)
    return [result.numpy() for result in results]


def _grid_ranges(box: tuple[slice, slice, slice], to_atlas: np.ndarray, shape: tuple[int, int, int]) -> list[slice]:
    """Ranges of grid voxels that hold every voxel whose centre lies in `box` of the padded atlas."""
    corners = np.array(list(itertools.product(*[(edge.start - 1, edge.stop) for edge in box])))
    voxels = nib.affines.apply_affine(np.linalg.inv(to_atlas), corners)
    low = np.clip(np.floor(voxels.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(voxels.max(axis=0)).astype(int) + 1, 0, shape)
    return [slice(int(a), int(b)) for a, b in zip(low, high, strict=True)]


def _lookup(wanted: Tensor, points: Tensor) -> Tensor:
    """Whether each point (n, 3) lies in `wanted`, whose outermost voxels are all False. Bool (n,)."""
    size = wanted.shape
    i, j, k = ((points[:, a] + 0.5).int().clamp_(0, size[a] - 1) for a in range(3))
    return wanted.view(-1)[(i * size[1] + j) * size[2] + k]


def sample(images: Tensor, points: Tensor, border: bool = False) -> Tensor:
    """Linear interpolation of (C, X, Y, Z) at voxel coordinates (n, 3) -> (C, n); outside is 0, or the nearest edge."""
    size = torch.tensor(images.shape[1:], dtype=torch.float32)
    at = (points * (2 / (size - 1)) - 1).flip(-1)  # grid_sample wants the last axis first, from -1 to 1
    return functional.grid_sample(
        images[None], at[None, None, None], align_corners=True, padding_mode="border" if border else "zeros"
    )[0, :, 0, 0]


def ventricle_ml(anatomy: Anatomy, subject: SubjectTruth) -> float:
    """True volume of the lateral ventricles in the subject's own head, millilitres."""
    low, high = to_padded([76, 72, 50]), to_padded([164, 184, 109])  # the ventricles, and how far they can grow
    axes = [torch.arange(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    field = torch.from_numpy(displacement(anatomy, subject))
    at = points + sample(field, points / FIELD_MM, border=True).T
    fraction = sample(torch.from_numpy(anatomy.ventricles.astype(np.float32))[None], at)
    return float(fraction.sum()) / abs(np.linalg.det(subject.affine[:3, :3])) / 1000
