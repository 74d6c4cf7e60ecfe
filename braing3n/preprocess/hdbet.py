"""Brain masks by HD-BET 2 (Isensee et al. 2019; paper, Appendix B): its nnU-Net predictor, run in this process.

HD-BET's own command reads its weights from a fixed place in the home folder and starts twelve processes a call. The
predictor underneath takes a folder, is loaded once for a shard, and gives the same masks.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from braing3n.config.data import MaskSettings
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of
from braing3n.preprocess.deepbet import torch_device
from braing3n.preprocess.images import in_orientation, read_image
from braing3n.preprocess.mask import MODALITIES, write_brain_mask

CHECKPOINT = "fold_all/checkpoint_final.pth"
WEIGHT_FILES = ("dataset.json", "plans.json", CHECKPOINT)
GET_WEIGHTS = (
    "unpack release_v1.5.0.zip of Zenodo record 14445620 (https://zenodo.org/records/14445620) into a folder and set "
    "preprocess.mask.weights to it; or set preprocess.mask.backend to deepbet"
)
ORIENTATION = "RAS"  # HD-BET wants the axes of the MNI template


class HDBet:
    """HD-BET 2. Mirroring at test time is `settings.tta`, eight times slower and slightly better."""

    name = "hd-bet"
    modalities = MODALITIES["hd-bet"]

    def __init__(self, settings: MaskSettings, threads: int):
        folder = check_weights(settings)
        self._device = torch_device(settings.device)
        torch.set_num_threads(threads)
        self._predictor = load_predictor(folder, self._device, settings.tta)

    def __call__(self, image: Path, out_mask: Path) -> dict[str, float]:
        source = read_image(image)
        mask = in_orientation(source, ORIENTATION, self._segment)
        return write_brain_mask(mask, source, out_mask, origin=image)

    def _segment(self, scan: sitk.Image) -> np.ndarray:
        voxels = sitk.GetArrayFromImage(scan)[None]  # (1, z, y, x)
        spacing = {"spacing": [float(length) for length in scan.GetSpacing()[::-1]]}
        return np.asarray(self._predictor.predict_single_npy_array(voxels, spacing, None, None, False))


def check_weights(settings: MaskSettings) -> Path:
    """The folder of weights, found whole and safe to load.

    The checkpoint is a Python pickle, and nnU-Net executes what it holds. So either its SHA-256 is the one that the
    user gave, or it is first read by `torch.load(weights_only=True)`, which executes nothing and refuses a file that
    holds more than tensors and plain values.

    Raises:
        BrainG3NError: a file is missing, the hash differs, or the checkpoint is refused.
    """
    folder = settings.weights
    missing = [name for name in WEIGHT_FILES if folder is None or not (folder / name).is_file()]
    if missing:
        raise BrainG3NError(
            "HD-BET's weights are missing",
            file=folder or "preprocess.mask.weights",
            expected=", ".join(WEIGHT_FILES),
            found="no folder given" if folder is None else f"no {', '.join(missing)}",
            remedy=GET_WEIGHTS,
        )
    checkpoint = folder / CHECKPOINT
    if settings.weights_sha256 is not None:
        found = sha256_of(checkpoint)
        if found != settings.weights_sha256.lower():
            raise BrainG3NError(
                "checkpoint is not the one named by preprocess.mask.weights_sha256",
                file=checkpoint,
                expected=f"sha256 {settings.weights_sha256}",
                found=f"sha256 {found}",
                remedy=GET_WEIGHTS,
            )
        return folder
    try:
        with torch.serialization.safe_globals(numpy_scalars()):
            torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BrainG3NError(
            "checkpoint holds more than tensors and plain values, and nnU-Net would execute it",
            file=checkpoint,
            found=str(error).strip().splitlines()[0],
            remedy="if you trust where it comes from, set preprocess.mask.weights_sha256 to its `sha256sum`",
        ) from error
    return folder


def numpy_scalars() -> list[Any]:
    """What the pickle of a NumPy number refers to; nnU-Net keeps its loss history as such."""
    scalar = np._core.multiarray.scalar
    types = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "bool")]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *types]


def load_predictor(folder: Path, device: torch.device, mirroring: bool) -> Any:
    """nnU-Net's predictor with HD-BET's options.

    Raises:
        BrainG3NError: nnU-Net is not installed, or the folder is not of its making.
    """
    os.environ["nnUNet_compile"] = "F"  # noqa: SIM112 - nnU-Net spells it so
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it greets and asks for its training folders
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    except ImportError as error:
        raise BrainG3NError(
            "HD-BET is not installed",
            file="preprocess.mask.backend",
            found=str(error),
            remedy="run `make env-hdbet`, or set preprocess.mask.backend to deepbet",
        ) from error
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=mirroring,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    try:
        predictor.initialize_from_trained_model_folder(str(folder), "all", Path(CHECKPOINT).name)
    except (KeyError, RuntimeError, ValueError) as error:
        raise BrainG3NError(
            "is not a folder of HD-BET weights", file=folder, found=str(error), remedy=GET_WEIGHTS
        ) from error
    return predictor
