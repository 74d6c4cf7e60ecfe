"""A scan of a few thousand voxels, for tests of what happens to voxels and their place."""

from __future__ import annotations

import numpy as np

from braing3n.preprocess.convert import affine_of_axes

SHAPE = (22, 24, 20)
ZOOMS = (6.0, 5.0, 5.5)


def lps(shape=SHAPE, zooms=ZOOMS) -> np.ndarray:
    return affine_of_axes("LPS", shape, np.array(zooms))


def scan(seed: int = 0, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)
