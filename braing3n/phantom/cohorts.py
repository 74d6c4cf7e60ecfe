"""Phantom cohorts on disk: plan every scan, render it, write the tables, and the truth in another place."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from braing3n.config.data import PhantomSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, settings_hash, sha256_of, write_bytes, write_json, write_parquet
from braing3n.phantom.adni import plan_adni
from braing3n.phantom.anatomy import load_anatomy
from braing3n.phantom.ixi import plan_ixi
from braing3n.phantom.plan import CohortPlan
from braing3n.phantom.render import render_plans
from braing3n.phantom.simulate import ventricle_ml
from braing3n.phantom.truth import ScanTruth, SubjectTruth, truth_row
from braing3n.phantom.upenn import plan_upenn
from braing3n.preprocess.atlas import load_atlas

log = logging.getLogger(__name__)

MANIFEST = "phantom.json"
SRI24_FILE = "sri24_T1.nii.gz"
PLANNERS: dict[str, Callable[[int, float, int], CohortPlan]] = {"ixi": plan_ixi, "adni": plan_adni, "upenn": plan_upenn}


def make_phantoms(
    atlas_folder: str | Path, settings: PhantomSettings, workers: int | None = None, save_truth_images: bool = False
) -> Path:
    """Write the cohorts into `settings.root` and their truth into the folder `truth` beside it.

    Cohorts made earlier with the same settings, atlas and code are left as they are, whatever happened to their files;
    those made otherwise are replaced. Equal settings give equal bytes.

    Args:
        workers: processes; default, the cores this process may use.
        save_truth_images: also write brain masks and bias fields.

    Returns:
        The truth table.

    Raises:
        BrainG3NError: `settings.root` holds a folder of a cohort's name that is not a phantom.
    """
    root, truth = settings.root, settings.root.parent / "truth"
    key = settings_hash(
        {
            "settings": settings.model_dump(mode="json", exclude={"root"}),
            "atlas": load_atlas(atlas_folder).sha256,
            "code": {path.name: sha256_of(path) for path in sorted(Path(__file__).parent.glob("*.py"))},
            "truth_images": save_truth_images,
        }
    )
    plans = [plan(getattr(settings, name), settings.voxel_mm, settings.seed) for name, plan in PLANNERS.items()]
    plans = [plan for plan in plans if plan.scans]
    cohorts = [*(plan.name for plan in plans), "SRI24"]
    if not _claim(root, key, cohorts):
        log.info("phantom cohorts in %s are up to date", root)
        return truth / "truth.parquet"
    rows = render_plans(atlas_folder, root, plans, truth, save_truth_images, workers)
    for plan in plans:
        for name, content in plan.tables.items():
            write_bytes(root / plan.name / name, content)
    rows.append(_write_sri24(atlas_folder, root))
    table = pd.DataFrame(rows).sort_values(["cohort", "source_path"], ignore_index=True)
    write_parquet(truth / "truth.parquet", table)
    write_json(root / MANIFEST, {"key": key, "complete": True, "cohorts": cohorts, "volumes": len(table)})
    return truth / "truth.parquet"


def _claim(root: Path, key: str, cohorts: list[str]) -> bool:
    """True when cohorts must be made; whatever an earlier run left of them is then gone."""
    manifest = root / MANIFEST
    known = read_json(manifest) if manifest.exists() else {}
    present = [root / name for name in cohorts if (root / name).exists()]
    if known.get("complete") and known["key"] == key and len(present) == len(cohorts):
        return False
    foreign = [folder for folder in present if folder.name not in known.get("cohorts", [])]
    if foreign:
        raise BrainG3NError(
            "folder exists and was not made by `braing3n phantom make`",
            file=foreign[0],
            remedy="set phantom.root to an empty folder, or move this one away",
        )
    for name in known.get("cohorts", []):
        shutil.rmtree(root / name, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    write_json(manifest, {"key": key, "complete": False, "cohorts": cohorts})  # ours, even if killed half-way
    return True


def _write_sri24(atlas_folder: str | Path, root: Path) -> dict[str, Any]:
    """The atlas's whole head, a real average of 24 adults, as a cohort of one scan."""
    atlas = load_atlas(atlas_folder)
    write_bytes(root / "SRI24" / SRI24_FILE, atlas.head_path.read_bytes())
    known = {"cohort": "SRI24", "source_path": SRI24_FILE, "subject": "SRI24", "session": "1"}
    measured = {
        "brain_ml": float(atlas.mask.sum()) / 1000,
        "ventricle_ml": ventricle_ml(load_anatomy(atlas_folder), SubjectTruth()),
    }
    return truth_row(SubjectTruth(), ScanTruth(), **known, **measured) | {"gain": None}
