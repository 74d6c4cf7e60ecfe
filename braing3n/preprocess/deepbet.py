"""Brain masks by deepbet (Fisch et al. 2024), whose trained networks come in its wheel.

The networks are TorchScript archives, read by `torch.jit.load`: no Python pickle is executed. They are as trusted as
the package's code, since both come in the one wheel that constraints.txt pins.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from braing3n.config.data import MaskSettings
from braing3n.errors import BrainG3NError
from braing3n.preprocess.images import read_image
from braing3n.preprocess.mask import MODALITIES, write_brain_mask


def torch_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> device.

    Raises:
        BrainG3NError: `cuda` is asked for where there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise BrainG3NError("no CUDA device is available", file="preprocess.mask.device", remedy="use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class DeepBet:
    """Two-step network: a box around the brain at low resolution, then the mask within it."""

    name = "deepbet"
    modalities = MODALITIES["deepbet"]

    def __init__(self, settings: MaskSettings, threads: int):
        from deepbet.bet import BrainExtraction

        device = torch_device(settings.device)
        torch.set_num_threads(threads)
        self._extraction = BrainExtraction(no_gpu=device.type == "cpu")

    def __call__(self, image: Path, out_mask: Path) -> dict[str, float]:
        source = read_image(image)
        # deepbet turns the voxels to R-A-S for its network and hands the mask back in the order of the file.
        scan = nib.load(image)
        try:
            _, mask, _ = self._extraction.run(nib.Nifti1Image(scan.get_fdata(dtype=np.float32), scan.affine))
        except (AssertionError, ValueError) as error:
            raise BrainG3NError(
                "deepbet finds no brain",
                file=image,
                found=str(error),
                remedy="look at the scan: wrong orientation, wrong modality or no brain",
            ) from error
        voxels = np.asarray(mask.dataobj).transpose(2, 1, 0) > 0
        return write_brain_mask(voxels, source, out_mask, origin=image)
