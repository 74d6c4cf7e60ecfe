"""Smooth fields: the displacement that makes one head unlike another, the bias field, a tumour's outline."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from braing3n.phantom.anatomy import FIELD_MM, FIELD_SHAPE, Anatomy, field_points, to_padded
from braing3n.phantom.truth import BRAIN_CENTRE_VOXEL, SubjectTruth, Tumour

DEFORMATION_LENGTH_MM = 20.0
HIPPOCAMPAL_MM = 2.0  # displacement at full hippocampal atrophy
DIMORPHISM_LENGTH_MM = 26.0
DIMORPHISM_SEED = 1905


@lru_cache(maxsize=2)  # the modalities of a session, and the measures of its truth, share one
def displacement(anatomy: Anatomy, subject: SubjectTruth) -> np.ndarray:
    """Displacement u in mm along the atlas's LPS voxel axes, (3, *FIELD_SHAPE), float32, without an affine part.

    The head at native point x shows the atlas at p + u(p), p the position of x in the atlas. Not to be written to.
    """
    field = -subject.ventricle_mm * anatomy.ventricular_field
    field = field + subject.hippocampal_atrophy * HIPPOCAMPAL_MM * anatomy.hippocampal_field
    nodes = _brain_nodes(anatomy)
    if subject.deformation_mm:
        field += subject.deformation_mm * _random_field(subject.deformation_seed, DEFORMATION_LENGTH_MM, nodes)
    if subject.dimorphism_mm:
        field += subject.dimorphism_mm * _dimorphism(anatomy)
    if subject.tumour:
        field += _mass_effect(subject.tumour)
    return without_affine_part(field, nodes).astype(np.float32)


def without_affine_part(field: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Subtract the least-squares affine fit over the nodes (bool, FIELD_SHAPE) from a field (3, *FIELD_SHAPE)."""
    points = field_points() - to_padded(BRAIN_CENTRE_VOXEL).reshape(3, 1, 1, 1)
    design = np.vstack([points[:, nodes], np.ones((1, int(nodes.sum())))])  # (4, n)
    fit, *_ = np.linalg.lstsq(design.T, field[:, nodes].T, rcond=None)  # (4, 3)
    return field - np.tensordot(fit[:3].T, points, 1) - fit[3].reshape(3, 1, 1, 1)


def _brain_nodes(anatomy: Anatomy) -> np.ndarray:
    inside = anatomy.brain[::FIELD_MM, ::FIELD_MM, ::FIELD_MM]
    return np.pad(inside, [(0, want - have) for have, want in zip(inside.shape, FIELD_SHAPE, strict=True)])


def _random_field(seed: int, length_mm: float, nodes: np.ndarray) -> np.ndarray:
    """Gaussian random field without affine part, root mean square length 1 over the nodes, (3, *FIELD_SHAPE)."""
    rng = np.random.default_rng(seed)
    sigma = (0, *3 * [length_mm / FIELD_MM])
    field = ndimage.gaussian_filter(rng.standard_normal((3, *FIELD_SHAPE), dtype=np.float32), sigma, truncate=3)
    field = without_affine_part(field, nodes)
    return field / np.sqrt((field[:, nodes] ** 2).sum(axis=0).mean())


@lru_cache(maxsize=1)
def _dimorphism(anatomy: Anatomy) -> np.ndarray:
    return _random_field(DIMORPHISM_SEED, DIMORPHISM_LENGTH_MM, _brain_nodes(anatomy))


def _mass_effect(tumour: Tumour) -> np.ndarray:
    """Tissue around the tumour is seen where it was pushed to: sample closer to the centre."""
    offset = field_points() - to_padded(tumour.centre).reshape(3, 1, 1, 1)
    reach = tumour.radius_mm + 6
    radius = np.linalg.norm(offset, axis=0) / reach
    return -tumour.mass_effect_mm * offset / reach * np.exp(0.5 * (1 - radius**2))


def bias_field(shape: tuple[int, int, int], amount: float, seed: int, mask: np.ndarray) -> np.ndarray:
    """Multiplicative field of low cosine modes that spans 1 - amount/2 to 1 + amount/2 over `mask`, float32."""
    if amount == 0:
        return np.ones(shape, np.float32)
    modes = 3
    rng = np.random.default_rng(seed)
    order = np.add.outer(np.add.outer(np.arange(modes) ** 2, np.arange(modes) ** 2), np.arange(modes) ** 2)
    weight = rng.standard_normal(order.shape) / (1 + order)
    field = weight.astype(np.float32)
    for n in shape:  # each pass turns the leading axis of modes into the trailing axis of voxels
        basis = np.cos(np.pi * np.outer(np.arange(modes), (np.arange(n) + 0.5) / n)).astype(np.float32)
        field = np.tensordot(field, basis, axes=(0, 0))
    inside = field[mask] if mask.any() else field
    low, high = float(inside.min()), float(inside.max())
    return np.clip(1 + amount * ((field - low) / (high - low) - 0.5), 0.2, None).astype(np.float32)


def tumour_parts(tumour: Tumour, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fractions of necrosis, enhancing rim and the reach of oedema at padded voxels (3, ...), each 0 to 1."""
    offset = points - to_padded(tumour.centre).reshape(3, *(1,) * (points.ndim - 1))
    rng = np.random.default_rng(tumour.seed)
    bumps = sum(
        np.sin(np.tensordot(rng.standard_normal(3) * 0.16, offset, 1) + rng.uniform(0, 2 * np.pi)) for _ in range(5)
    )
    radius = np.linalg.norm(offset, axis=0) * (1 + 0.09 * bumps)

    def inside(edge: float, softness: float) -> np.ndarray:
        return 1 / (1 + np.exp(np.clip((radius - edge) / softness, -30, 30)))

    core = inside(tumour.radius_mm - tumour.rim_mm, 0.6)
    whole = inside(tumour.radius_mm, 0.6)
    return core, whole - core, inside(tumour.radius_mm + tumour.oedema_mm, 2.0) * (1 - whole)
