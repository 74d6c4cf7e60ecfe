"""UPENN-GBM as downloaded: stripped scans of glioblastoma, four modalities on one 1 mm grid, and a clinical CSV."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE
from braing3n.phantom.people import Site, draw_person, draw_scan, head_at, spread_ages
from braing3n.phantom.plan import CohortPlan, PlannedScan, csv_bytes, rng_of
from braing3n.phantom.truth import BRAIN_CENTRE, Grid, Tumour, pose

SITE = Site("UPENN", "Siemens", "TrioTim", 3.0, gain=900, noise=0.015, bias=0.15)
AGES = (38.0, 82.0)
FILE_MODALITY = {"T1": "T1", "T1GD": "T1c", "T2": "T2", "FLAIR": "FLAIR"}
COLUMNS = [
    "ID",
    "Gender",
    "Age_at_scan_years",
    "Survival_from_surgery_days_UPDATED",
    "Survival_Status",
    "Survival_Censor",
    "IDH1",
    "MGMT",
    "KPS",
    "GTR_over90percent",
    "Time_since_baseline_preop",
    "PsP_TP_score",
]
IDH1 = ("Wildtype", "Mutated", "NOS/NEC", "Wildtype", "Wildtype")
MGMT = ("Methylated", "Not Available", "Unmethylated", "Indeterminate")
KPS = ("90", "Not Available", "80", "70")
# Middles of white matter of both hemispheres, SRI24 voxels: frontal, parietal, temporal.
TUMOUR_SITES = ((148, 92, 92), (90, 152, 100), (156, 135, 58), (92, 90, 90), (150, 150, 98), (84, 130, 60))


def plan_upenn(n: int, voxel_mm: float, seed: int) -> CohortPlan:
    """`n` persons with a tumour, one pre-operative session (`_11`) each. The grid is 1 mm whatever `voxel_mm`."""
    del voxel_mm  # delivered registered, so at the atlas's own voxel size
    rng = rng_of(seed, "upenn")
    ages = spread_ages(n, *AGES, rng)
    scans: list[PlannedScan] = []
    rows: list[dict[str, Any]] = []
    for i in range(n):
        session = f"UPENN-GBM-{1 + 3 * i:05d}_11"
        row = _clinical_row(session, "MF"[i % 2], float(ages[i]), i, rng_of(seed, "upenn-table", i))
        scans += _session(row, i, rng_of(seed, "upenn", i))
        rows.append(row)
    tables = {"UPENN-GBM_clinical_info_v2.1.csv": csv_bytes(rows, COLUMNS)} if rows else {}
    return CohortPlan("UPENN-GBM", scans, tables)


def _session(row: dict[str, Any], i: int, rng: np.random.Generator) -> list[PlannedScan]:
    person = replace(draw_person(row["Gender"], rng), shear=(0.0, 0.0, 0.0))
    mutant = row["IDH1"] == "Mutated"  # enhances less
    tumour = Tumour(
        centre=tuple(float(c) for c in np.array(TUMOUR_SITES[i % len(TUMOUR_SITES)]) + rng.uniform(-4, 4, 3)),
        radius_mm=float(rng.uniform(11, 18)),
        enhancement=0.25 if mutant else 1.0,
        oedema_mm=8.0 if mutant else 14.0,
        seed=int(rng.integers(2**31)),
    )
    # Delivered as "SRI24", yet turned a little and high on the canvas.
    shift = BRAIN_CENTRE + rng.normal(0, 1.0, 3) + [0, 0, 6]
    affine = pose(rng.normal(0, 1.5, 3), shift, person.scale, person.shear)
    head = head_at(person, row["Age_at_scan_years"], 0.0, affine, tumour=tumour)
    known = {
        "subject": row["ID"].split("_")[0],
        "session": row["ID"].split("_")[1],
        "age": row["Age_at_scan_years"],
        "sex": row["Gender"],
        "diagnosis": "GBM",
        "severity": 0.0,
        "site": SITE.name,
        "vendor": SITE.vendor,
        "field_strength": SITE.field_strength,
        "idh1": {"Wildtype": "wildtype", "Mutated": "mutant"}.get(row["IDH1"]),
    }
    grid = Grid(SRI24_SHAPE, SRI24_AFFINE)
    folder = f"NIfTI-files/images_structural/{row['ID']}"
    return [
        PlannedScan(
            f"{folder}/{row['ID']}_{name}.nii.gz", head, draw_scan(SITE, modality, rng, stripped=True), grid, known
        )
        for name, modality in FILE_MODALITY.items()
    ]


def _clinical_row(session: str, sex: str, age: float, i: int, rng: np.random.Generator) -> dict[str, Any]:
    deceased = bool(rng.random() < 0.8)
    return {
        "ID": session,
        "Gender": sex,
        "Age_at_scan_years": round(age, 2),
        "Survival_from_surgery_days_UPDATED": int(rng.integers(60, 1500)) if i % 5 != 3 else "Not Available",
        "Survival_Status": "Deceased" if deceased else "Alive",
        "Survival_Censor": int(not deceased),
        "IDH1": IDH1[i % len(IDH1)],
        "MGMT": MGMT[i % len(MGMT)],
        "KPS": KPS[i % len(KPS)],
        "GTR_over90percent": ("Y", "N", "Not Available")[i % 3],
        "Time_since_baseline_preop": 0,
        "PsP_TP_score": "Not Applicable",
    }
