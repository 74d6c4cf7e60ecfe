"""What the simulator knows about the head, derived once from the SRI24 whole-head and brain-only T1.

Everything lies on the atlas's voxel axes (LPS, 1 mm). Below the atlas's lowest slice PAD more are added, so that a
field of view that reaches under the skull base fades out instead of ending in a cut.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage
from sklearn.mixture import GaussianMixture

from braing3n.files import atomic_path, short_hash
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE
from braing3n.preprocess.atlas import load_atlas

PAD = 48  # slices added below the atlas
SHAPE = (SRI24_SHAPE[0], SRI24_SHAPE[1], SRI24_SHAPE[2] + PAD)
FIELD_MM = 4  # spacing of displacement fields
FIELD_SHAPE = tuple(-(-(n - 1) // FIELD_MM) + 1 for n in SHAPE)
PADDED_AFFINE = SRI24_AFFINE @ nib.affines.from_matvec(np.eye(3), [0, 0, -PAD])  # padded voxel -> SRI24 RAS+ mm
MIDLINE = 119.5
AIR = 150.0  # T1 of the brain-only atlas's scale below which a smooth stretch is air; white matter is at about 720

# Long axis of the left hippocampus from head to tail, in SRI24 voxels; the right one mirrors it.
HIPPOCAMPUS = np.array([[143.0, 115.0, 46.0], [148.0, 130.0, 52.0], [149.0, 145.0, 58.0], [141.0, 155.0, 66.0]])
HIPPOCAMPUS_MM = 7.0  # radius at which a hippocampus shrinks fastest


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Maps on SHAPE (padded atlas voxels) and displacement fields (3, *FIELD_SHAPE) in mm along the LPS voxel axes."""

    t1: np.ndarray
    """Whole-head T1, white matter 1, float32."""
    brain: np.ndarray
    """Brain mask, bool."""
    from_brain: np.ndarray
    """Distance to the brain in mm, rounded up, uint8; 255 on the faces of the array."""
    from_head: np.ndarray
    """Likewise to the head."""
    outer_csf: np.ndarray
    """Fraction of cerebrospinal fluid between brain and skull, 0 inside the brain, float16."""
    face: np.ndarray
    """What defacing removes, bool."""
    ventricles: np.ndarray
    """Lateral ventricles, fraction, float16."""
    cortical: np.ndarray
    """T1 lost at full cortical atrophy (sulci widen), float16."""
    hippocampal: np.ndarray
    """T1 lost at full hippocampal atrophy (the temporal horn fills), float16."""
    lesions: np.ndarray
    """Susceptibility of white matter to lesions, 0 to 1, float16."""
    ventricular_field: np.ndarray
    """Outward from the lateral ventricles, at most 1 mm long."""
    hippocampal_field: np.ndarray
    """Away from the hippocampi's long axes, at most 1 mm long."""
    tissue: np.ndarray
    """Mean T1 of cerebrospinal fluid, grey and white matter (white matter 1), (3,)."""


def load_anatomy(atlas_folder: str | Path) -> Anatomy:
    """The anatomy that belongs to an atlas folder; derived on first use and kept beside the atlas."""
    atlas = load_atlas(atlas_folder)
    source = Path(__file__).read_text()  # another derivation, another file
    path = atlas.folder / f"phantom-anatomy-{short_hash(source, *sorted(atlas.sha256.values()), length=8)}.npz"
    if not path.exists():
        anatomy = derive_anatomy(atlas.head, atlas.brain, atlas.mask)
        with atomic_path(path) as temporary:
            np.savez(temporary, **{field.name: getattr(anatomy, field.name) for field in fields(Anatomy)})
        for outdated in set(atlas.folder.glob("phantom-anatomy-*.npz")) - {path}:
            outdated.unlink(missing_ok=True)
    with np.load(path, allow_pickle=False) as content:
        return Anatomy(**{field.name: content[field.name] for field in fields(Anatomy)})


def derive_anatomy(head: np.ndarray, brain: np.ndarray, mask: np.ndarray) -> Anatomy:
    """Tissue, ventricles, sites of atrophy and lesions from the atlas's three images (240, 240, 155)."""
    # The brain-only image is the head times a constant; the head's scale carries on outside the brain.
    scale = np.median(head[mask] / np.maximum(brain[mask], 1))
    tissue = _tissue_means(brain[mask])
    t1 = _soften(_pad(_without_background(head / scale), fade=True) / tissue[2])
    tissue = tissue / tissue[2]
    mask = _pad(mask)
    csf = np.clip((tissue[1] - t1) / (tissue[1] - tissue[0]), 0, 1) * mask  # fraction in a CSF-grey mixture
    white = np.clip((t1 - tissue[1]) / (tissue[2] - tissue[1]), 0, 1) * mask

    inward = ndimage.distance_transform_edt(mask).astype(np.float32)
    outward = ndimage.distance_transform_edt(~mask).astype(np.float32)
    ventricles = _lateral_ventricles(csf, inward)
    ventricular_field = _outward_field(ventricles)
    distance = ndimage.distance_transform_edt(ventricles < 0.5).astype(np.float32)

    tube, hippocampal_field = _hippocampi()
    widened = np.clip(2.5 * ndimage.gaussian_filter(csf * (distance > 4), 1.5) - 0.25, 0, 1) * mask
    cortex = np.exp(-((inward / 20.0) ** 2)) * (distance > 8)
    depth = np.maximum(t1 - tissue[0], 0)
    periventricular = np.exp(-np.maximum(distance - 1, 0) / 5.0)
    deep = 0.35 * np.exp(-(((distance - 16) / 8.0) ** 2)) * (inward > 14)
    patches = np.clip(0.5 + 0.5 * smooth_noise(SHAPE, 3.0, np.random.default_rng(24)), 0, 1.5)
    dark_outside = np.clip((0.5 - t1) / 0.25, 0, 1) * ~mask
    return Anatomy(
        t1=t1.astype(np.float32),
        brain=mask,
        from_brain=_whole_mm(outward),
        from_head=_whole_mm(ndimage.distance_transform_edt(t1 <= 0.02)),
        outer_csf=(dark_outside * np.clip((4.5 - outward) / 1.5, 0, 1)).astype(np.float16),
        face=_face(outward),
        ventricles=ventricles.astype(np.float16),
        cortical=(depth * widened * cortex).astype(np.float16),
        hippocampal=(depth * np.clip(tube, 0, 1) * np.clip(0.3 + 2 * widened, 0, 1) * mask).astype(np.float16),
        lesions=(white * (periventricular + deep) * patches).clip(0, 1).astype(np.float16),
        ventricular_field=ventricular_field,
        hippocampal_field=hippocampal_field,
        tissue=tissue,
    )


def to_padded(voxels: Any) -> np.ndarray:
    """SRI24 voxel coordinates (..., 3) -> padded ones."""
    return np.asarray(voxels, float) + np.array([0, 0, PAD])


def smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise smoothed over `sigma` voxels, mean 0 and standard deviation 1, float32."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    noise -= noise.mean()
    return noise / noise.std()


def _tissue_means(values: np.ndarray) -> np.ndarray:
    """Means of cerebrospinal fluid, grey and white matter in a mixture of four classes; one is of mixed voxels."""
    start = np.quantile(values, [0.02, 0.12, 0.45, 0.9])[:, None]
    mixture = GaussianMixture(4, means_init=start, random_state=0).fit(values[::20, None].astype(np.float64))
    return np.sort(mixture.means_.ravel())[[0, 2, 3]]


def _pad(volume: np.ndarray, fade: bool = False) -> np.ndarray:
    padded = np.pad(volume, ((0, 0), (0, 0), (PAD, 0)), mode="constant")
    if fade:  # repeat the lowest slice, ever weaker and smoother, as where a receive coil ends
        lowest = volume[:, :, 0]
        for below in range(1, PAD + 1):
            weight = np.clip(1.15 * (1 - below / (PAD - 2)), 0, 1)
            padded[:, :, PAD - below] = weight * ndimage.gaussian_filter(lowest, below / 12)
    return padded


def _without_background(head: np.ndarray) -> np.ndarray:
    """The head with the air around it set to zero; air inside the head (sinuses) stays dark as it is."""
    margin = 8  # closing would eat what touches the edge of the image
    seen = np.pad(ndimage.gaussian_filter(head, 1.5) > AIR, margin, mode="edge")
    labels, _ = ndimage.label(ndimage.binary_closing(seen, iterations=6))
    labels = labels[margin:-margin, margin:-margin, margin:-margin]
    inside = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    for k in range(inside.shape[2]):
        inside[:, :, k] = ndimage.binary_fill_holes(inside[:, :, k])
    return head * ndimage.gaussian_filter(inside.astype(np.float32), 0.7)


def _soften(t1: np.ndarray) -> np.ndarray:
    """Fat is up to four times as bright as white matter in the average head; scanners' pulses and coils show less."""
    return np.where(t1 > 1.1, 1.1 + 0.35 * (t1 - 1.1), t1)


def _lateral_ventricles(csf: np.ndarray, inward: np.ndarray) -> np.ndarray:
    """Fraction of lateral ventricle: the deep, central component of cerebrospinal fluid without the third ventricle."""
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], -PAD : SRI24_SHAPE[2]]
    lateral = np.abs(x - MIDLINE)
    region = (lateral < 33) & (y > 82) & (y < 174) & (z > 60) & (z < 99)
    region &= ((y < 112) | (lateral > 5) | (z > 84)) & ((y < 136) | (lateral > 9) | (z > 84))
    region &= ((z > 74) | (y > 140)) & (inward > 10)
    labels, _ = ndimage.label((csf > 0.35) & region)
    seeds = labels[[113, 126], [105, 105], [84 + PAD, 84 + PAD]]
    body = np.isin(labels, seeds[seeds > 0])
    return np.where(ndimage.binary_dilation(body) & region, csf, 0).astype(np.float32)


def _outward_field(region: np.ndarray, sigma: float = 6.0) -> np.ndarray:
    """Unit-bounded field pointing out of a region, smooth over `sigma` mm. (3, *FIELD_SHAPE)."""
    blurred = ndimage.gaussian_filter(region.astype(np.float32), sigma)
    field = -np.stack([component[::FIELD_MM, ::FIELD_MM, ::FIELD_MM] for component in np.gradient(blurred)])
    field = np.stack([_extend(component) for component in field])
    return (field / np.linalg.norm(field, axis=0).max()).astype(np.float32)


def _extend(component: np.ndarray) -> np.ndarray:
    return np.pad(
        component, [(0, want - have) for have, want in zip(component.shape, FIELD_SHAPE, strict=True)], "edge"
    )


def field_points() -> np.ndarray:
    """Padded voxel coordinates of the nodes of a displacement field, (3, *FIELD_SHAPE)."""
    return np.stack(np.meshgrid(*[np.arange(n) * float(FIELD_MM) for n in FIELD_SHAPE], indexing="ij"))


def _hippocampi() -> tuple[np.ndarray, np.ndarray]:
    """Closeness (1 on the axis) on SHAPE, and the unit-bounded field away from both axes on FIELD_SHAPE."""
    left = to_padded(HIPPOCAMPUS)
    right = np.column_stack([2 * MIDLINE - left[:, 0], left[:, 1:]])
    nodes = field_points()
    tube, field = np.zeros(SHAPE, np.float32), np.zeros(nodes.shape, np.float32)
    for axis in (left, right):
        low, high = (axis.min(axis=0) - 18).astype(int), (axis.max(axis=0) + 19).astype(int)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        points = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"))
        distance = np.linalg.norm(_from_polyline(points, axis), axis=0)
        tube[box] = np.maximum(tube[box], np.exp(-((distance / HIPPOCAMPUS_MM) ** 2)))
        offset = _from_polyline(nodes, axis)
        radius = np.linalg.norm(offset, axis=0) / HIPPOCAMPUS_MM
        field += offset / HIPPOCAMPUS_MM * np.exp(0.5 * (1 - radius**2))
    return tube, field


def _from_polyline(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Vector from the nearest point of a polyline to each point, (3, ...)."""
    best, best_length = np.zeros(points.shape), np.full(points.shape[1:], np.inf)
    for start, end in itertools.pairwise(line):
        along = end - start
        relative = points - start.reshape(3, 1, 1, 1)
        t = np.clip(np.tensordot(along, relative, 1) / (along @ along), 0, 1)
        offset = relative - along.reshape(3, 1, 1, 1) * t
        length = np.linalg.norm(offset, axis=0)
        nearer = length < best_length
        best[:, nearer], best_length = offset[:, nearer], np.minimum(length, best_length)
    return best


def _whole_mm(distance: np.ndarray) -> np.ndarray:
    result = np.full(distance.shape, 255, np.uint8)
    inner = (slice(1, -1),) * 3
    result[inner] = np.minimum(np.ceil(distance[inner]), 255)
    return result


def _face(outward: np.ndarray) -> np.ndarray:
    """In front of and below a plane from the brow to the jaw, 6 mm clear of the brain."""
    _, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], -PAD : SRI24_SHAPE[2]]
    return np.broadcast_to(y < 95 - 0.7 * z, SHAPE) & (outward > 6)
