"""Voxel metrics of a reconstruction: L1, PSNR and 3D SSIM inside a region of a z-scored volume."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

WINDOW_SIGMA, WINDOW_RADIUS = 1.5, 5  # an 11-voxel Gaussian window (Wang et al. 2004)
K1, K2 = 0.01, 0.03


def data_range(original: np.ndarray) -> float:
    """Distance of the 0.5 and 99.5 percentile of the brain (voxels other than 0), for PSNR and SSIM.

    z-scored volumes have no range of their own; a single bright vessel must not set it.
    """
    low, high = np.quantile(original[original != 0], [0.005, 0.995])
    return float(high - low)


def smoothed(x: np.ndarray) -> np.ndarray:
    for axis in range(3):
        x = ndimage.gaussian_filter1d(x, WINDOW_SIGMA, axis=axis, radius=WINDOW_RADIUS, mode="nearest")
    return x


class Original:
    """One original with what every comparison to it shares, cropped to its brain and a window's radius around it.

    Args:
        volume: (X, Y, Z) float32, z-scored, background 0.
    """

    def __init__(self, volume: np.ndarray):
        brain = volume != 0
        bounds = ndimage.find_objects(brain.astype(np.uint8))[0]
        self.box = tuple(slice(max(s.start - WINDOW_RADIUS, 0), s.stop + WINDOW_RADIUS) for s in bounds)
        self.volume, self.brain = volume[self.box], brain[self.box]
        self.range = data_range(volume)
        self.mean = smoothed(self.volume)
        self.variance = smoothed(self.volume**2) - self.mean**2

    def ssim_map(self, reconstruction: np.ndarray) -> np.ndarray:
        """Structural similarity at each voxel of the cropped volume."""
        mean = smoothed(reconstruction)
        variance = smoothed(reconstruction**2) - mean**2
        covariance = smoothed(reconstruction * self.volume) - mean * self.mean
        c1, c2 = (K1 * self.range) ** 2, (K2 * self.range) ** 2
        luminance = (2 * mean * self.mean + c1) / (mean**2 + self.mean**2 + c1)
        return luminance * (2 * covariance + c2) / (variance + self.variance + c2)

    def compare(self, reconstruction: np.ndarray, region: np.ndarray | None = None) -> dict[str, float]:
        """Metrics over the brain, or over the part of it in `region`.

        Args:
            reconstruction: (X, Y, Z), z-scored.
            region: (X, Y, Z) bool.

        Returns:
            l1, in standard deviations of the brain; psnr in dB; ssim.
        """
        reconstruction = reconstruction[self.box]
        inside = self.brain if region is None else self.brain & region[self.box]
        error = reconstruction[inside].astype(np.float64) - self.volume[inside]
        squared = max(float((error**2).mean()), 1e-20)
        return {
            "l1": float(np.abs(error).mean()),
            "psnr": float(20 * np.log10(self.range) - 10 * np.log10(squared)),
            "ssim": float(self.ssim_map(reconstruction)[inside].mean()),
        }
