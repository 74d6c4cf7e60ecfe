"""The grids that everything is defined on, written once (paper, Appendix B).

World coordinates inside ITK and ANTs are LPS+ (x to the left, y to the posterior); NIfTI affines are RAS+.
The SRI24 grid is 240x240x155 voxels of 1 mm. In LPS terms: direction identity, origin (0, -239, 0), which is
the NIfTI affine diag(-1, -1, 1) with offset (0, 239, 0).
"""

from __future__ import annotations

import numpy as np

SRI24_SHAPE = (240, 240, 155)
SRI24_AFFINE = np.array(  # voxel -> RAS+ millimetres
    [[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 239.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)

VOLUME_SHAPE = (160, 192, 160)  # every stored volume
PATCH_SIZE = 16
TOKEN_GRID = tuple(n // PATCH_SIZE for n in VOLUME_SHAPE)  # (10, 12, 10)
N_TOKENS = int(np.prod(TOKEN_GRID))  # 1200

MODALITIES = ("T1", "T2", "FLAIR", "T1c")


def crop_bounds(
    shape: tuple[int, int, int] = SRI24_SHAPE, target: tuple[int, int, int] = VOLUME_SHAPE
) -> list[tuple[slice, slice]]:
    """For each axis the (source, destination) slices of a centred crop or zero-pad from `shape` to `target`."""
    bounds = []
    for have, want in zip(shape, target, strict=True):
        if have >= want:
            start = (have - want) // 2
            bounds.append((slice(start, start + want), slice(0, want)))
        else:
            start = (want - have) // 2
            bounds.append((slice(0, have), slice(start, start + have)))
    return bounds


def center_crop_or_pad(volume: np.ndarray, target: tuple[int, int, int] = VOLUME_SHAPE) -> np.ndarray:
    """Centre crop or zero-pad a 3D array to `target`. Shape (X, Y, Z) -> target, same dtype."""
    result = np.zeros(target, dtype=volume.dtype)
    bounds = crop_bounds(volume.shape, target)
    result[tuple(b[1] for b in bounds)] = volume[tuple(b[0] for b in bounds)]
    return result


def cropped_affine(affine: np.ndarray = SRI24_AFFINE, shape=SRI24_SHAPE, target=VOLUME_SHAPE) -> np.ndarray:
    """Affine of `center_crop_or_pad`'s result, so that cropped volumes still overlay the atlas."""
    offset = np.array([s.start - d.start for s, d in crop_bounds(shape, target)], dtype=float)
    result = affine.copy()
    result[:3, 3] = affine[:3, :3] @ offset + affine[:3, 3]
    return result
