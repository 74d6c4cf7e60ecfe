"""IXI as downloaded: a flat folder of NIfTI files, T1 and an anisotropic T2 a session, and a legacy .xls table."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import numpy as np
import xlwt

from braing3n.phantom.people import Person, Site, draw_person, draw_scan, head_at, head_pose, spread_ages
from braing3n.phantom.plan import CohortPlan, PlannedScan, rng_of
from braing3n.phantom.truth import rigid, scanner_grid

SITES = (
    Site("Guys", "Philips", "Intera", 1.5, gain=700, noise=0.030, bias=0.20),
    Site("HH", "Philips", "Intera", 3.0, gain=1400, gamma=1.1, noise=0.018, bias=0.35),
    Site("IOP", "GE", "Signa", 1.5, gain=420, gamma=0.9, noise=0.040, bias=0.25),
)
AGES = (20.0, 85.0)
COLUMNS = (
    "IXI_ID",
    "SEX_ID (1=m, 2=f)",
    "HEIGHT",
    "WEIGHT",
    "ETHNIC_ID",
    "MARITAL_ID",
    "OCCUPATION_ID",
    "QUALIFICATION_ID",
    "DOB",
    "DATE_AVAILABLE",
    "STUDY_DATE",
    "AGE",
)


def plan_ixi(n: int, voxel_mm: float, seed: int) -> CohortPlan:
    """`n` persons over three sites, women and men in turn; the last has no T2."""
    rng = rng_of(seed, "ixi")
    ages = spread_ages(n, *AGES, rng)
    scans: list[PlannedScan] = []
    rows: list[dict[str, Any]] = []
    for i in range(n):
        person_rng = rng_of(seed, "ixi", i)
        person = draw_person("FM"[i % 2], person_rng)
        row = _table_row(2 + 11 * i, person.sex, float(ages[i]), person_rng)
        modalities = ("T1",) if n > 1 and i == n - 1 else ("T1", "T2")
        scans += _session(row, person, SITES[i % len(SITES)], 801 + 37 * i, modalities, voxel_mm, person_rng)
        rows.append(row)
    return CohortPlan("IXI", scans, {"IXI.xls": _xls(rows)} if rows else {})


def _session(
    row: dict[str, Any],
    person: Person,
    site: Site,
    number: int,
    modalities: tuple[str, ...],
    voxel_mm: float,
    rng: np.random.Generator,
) -> list[PlannedScan]:
    head = head_at(person, row["AGE"], 0.0, head_pose(person, rng))
    grids = {  # sagittal T1; transverse T2 with thicker slices and a smaller field of view
        "T1": scanner_grid(3 * [voxel_mm], (195, 255, 255), "PSR", (0, 5, -18)),
        "T2": scanner_grid((voxel_mm, voxel_mm, 4 / 3 * voxel_mm), (210, 240, 190), "LPS", (0, 5, 0)),
    }
    planned = []
    for modality in modalities:
        motion = np.eye(4) if modality == "T1" else rigid(rng.normal(0, 1.0, 3), rng.normal(0, 1.0, 3))
        known = {
            "subject": f"IXI{row['IXI_ID']:03d}",
            "session": f"{number:04d}",
            "age": row["AGE"],
            "sex": person.sex,
            "diagnosis": "HC",
            "severity": 0.0,
            "site": site.name,
            "vendor": site.vendor,
            "field_strength": site.field_strength,
        }
        path = f"{known['subject']}-{site.name}-{known['session']}-{modality}.nii.gz"
        planned.append(PlannedScan(path, head, draw_scan(site, modality, rng, motion=motion), grids[modality], known))
    return planned


def _table_row(number: int, sex: str, age: float, rng: np.random.Generator) -> dict[str, Any]:
    study = dt.date(2005, 6, 1) + dt.timedelta(days=int(rng.integers(0, 900)))
    birth = study - dt.timedelta(days=round(age * 365.25))
    return {
        "IXI_ID": number,
        "SEX_ID (1=m, 2=f)": 1 if sex == "M" else 2,
        "HEIGHT": int(rng.normal(178 if sex == "M" else 165, 6)),
        "WEIGHT": int(rng.integers(2)) * int(rng.normal(72, 9)),  # 0 is the table's code for unknown
        "ETHNIC_ID": int(rng.integers(1, 7)),
        "MARITAL_ID": int(rng.integers(1, 6)),
        "OCCUPATION_ID": int(rng.integers(1, 9)),
        "QUALIFICATION_ID": int(rng.integers(1, 6)),
        "DOB": birth,
        "DATE_AVAILABLE": 1,
        "STUDY_DATE": study,
        "AGE": round((study - birth).days / 365.25, 2),
    }


def _xls(rows: list[dict[str, Any]]) -> bytes:
    """The table in Excel's old format; the first person stands there twice, once without an age."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("Table")
    date = xlwt.easyxf(num_format_str="YYYY-MM-DD")
    without_age = rows[0] | {"AGE": None, "STUDY_DATE": None, "DATE_AVAILABLE": 0}
    for column, name in enumerate(COLUMNS):
        sheet.write(0, column, name)
        for line, row in enumerate([without_age, *rows], start=1):
            if row[name] is not None:
                style = (date,) if isinstance(row[name], dt.date) else ()
                sheet.write(line, column, row[name], *style)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()
