"""Names of the preprocessed files: BIDS derivatives, relative to the results folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

import braing3n
from braing3n.files import write_json, write_text

P = TypeVar("P", bound=PurePath)

SUFFIX = {"T1": "T1w", "T1c": "T1w", "T2": "T2w", "FLAIR": "FLAIR"}  # BIDS has no suffix for T1c: ce-gadolinium
SPACE = "SRI24"
SPATIAL_REFERENCE = "https://www.nitrc.org/projects/sri24"  # required, since SRI24 is not on BIDS' list of templates


def entities(row: Mapping[str, Any]) -> str:
    """`sub-<S>_ses-<S>[_ce-gadolinium][_run-<N>]` of an index row."""
    parts = [f"sub-{row['bids_subject']}", f"ses-{row['bids_session']}"]
    if row["modality"] == "T1c":
        parts.append("ce-gadolinium")
    if int(row["run"]) > 1:
        parts.append(f"run-{int(row['run'])}")
    return "_".join(parts)


def folder(row: Mapping[str, Any]) -> PurePosixPath:
    """Where the files of a row's session lie."""
    session = PurePosixPath(f"sub-{row['bids_subject']}") / f"ses-{row['bids_session']}" / "anat"
    return PurePosixPath("derivatives") / row["cohort"] / session


def image_path(row: Mapping[str, Any], *, desc: str, space: str | None = None) -> PurePosixPath:
    """An image; without `space` it lies on the scan's own grid."""
    middle = f"_space-{space}" if space else ""
    return folder(row) / f"{entities(row)}{middle}_desc-{desc}_{SUFFIX[row['modality']]}.nii.gz"


def mask_path(row: Mapping[str, Any], *, desc: str, space: str | None = None) -> PurePosixPath:
    """A brain mask; `desc` says where it came from."""
    middle = f"_space-{space}" if space else ""
    return folder(row) / f"{entities(row)}{middle}_label-brain_desc-{desc}_mask.nii.gz"


def desc_of(path: str | PurePosixPath) -> str:
    """The `desc` label of a file name."""
    return PurePosixPath(path).name.split("_desc-")[1].split("_")[0]


def transform_path(row: Mapping[str, Any], *, to: str) -> PurePosixPath:
    """An affine in ITK's format, from the scan's own grid to `to` (SRI24, or the suffix of the session's anchor)."""
    return folder(row) / f"{entities(row)}_from-{SUFFIX[row['modality']]}_to-{to}_mode-image_xfm.mat"


def sidecar_path(image: P) -> P:
    """The JSON file that describes an image."""
    return image.with_name(image.name.removesuffix(".nii.gz") + ".json")


def bids_uri(path: str | PurePosixPath) -> str:
    """BIDS URI of a file within its own dataset, from its path relative to the results folder."""
    return "bids::" + "/".join(PurePosixPath(path).parts[2:])


def write_dataset_description(results: Path, cohort: str) -> None:
    """`dataset_description.json` of a cohort's derivatives; an equal file is left alone."""
    root = results / "derivatives" / cohort
    description = {
        "Name": f"{cohort}, preprocessed by BrainG3N",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "BrainG3N", "Version": braing3n.__version__}],
    }
    write_json(root / "dataset_description.json", description, only_if_changed=True)
    write_text(root / ".bidsignore", "*_xfm.mat\n", only_if_changed=True)  # BIDS has no transforms yet (BEP014)
