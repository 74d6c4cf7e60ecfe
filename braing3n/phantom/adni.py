"""ADNI as downloaded: sagittal MPRAGE DICOM series in LONI's folder tree, two or three visits, and seven tables."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np

from braing3n.phantom.people import (
    Person,
    Site,
    diagnosis_of,
    draw_person,
    draw_scan,
    draw_scores,
    head_at,
    head_pose,
    spread_ages,
)
from braing3n.phantom.plan import CohortPlan, PlannedScan, csv_bytes, rng_of
from braing3n.phantom.truth import scanner_grid

SITES = {  # the first three digits of a participant's id
    "002": Site("002", "Siemens", "TrioTim", 3.0, gain=600, gamma=1.05, noise=0.020, bias=0.35),
    "011": Site("011", "GE", "SIGNA EXCITE", 1.5, gain=1500, gamma=0.95, noise=0.030, bias=0.20),
    "023": Site("023", "Philips", "Achieva", 3.0, gain=900, noise=0.025, bias=0.30),
}
MANUFACTURER = {"Siemens": "SIEMENS", "GE": "GE MEDICAL SYSTEMS", "Philips": "Philips Medical Systems"}  # in headers
AGES = (57.0, 84.0)  # at baseline
# Severity at baseline and its growth per year: healthy, Alzheimer's disease, MCI, healthy, MCI that converts.
COURSES = ((0.0, 0.0), (0.9, 0.10), (0.45, 0.06), (0.05, 0.01), (0.62, 0.12))
VISIT_CODES = {0: "bl", 12: "m12", 24: "m24", 36: "m36", 48: "m48"}
TABLES = {
    "PTDEMOG": ["PTGENDER", "PTDOB", "PTDOBYY", "PTHAND", "PTMARRY", "PTEDUCAT", "PTETHCAT", "PTRACCAT"],
    "DXSUM": ["DIAGNOSIS"],
    "MMSE": ["MMSCORE"],
    "CDR": ["CDGLOBAL", "CDRSB"],
    "MOCA": ["MOCA"],
    "GDSCALE": ["GDTOTAL"],
    "APOERES": ["APGEN1", "APGEN2", "GENOTYPE"],
}
DATE_COLUMN = {"DXSUM": "EXAMDATE"}  # VISDATE in the others
RELEASE = "_15Jan2026.csv"


@dataclass(frozen=True)
class Participant:
    ptid: str
    person: Person
    birth: dt.date
    baseline: dt.date
    severity: float
    progression: float
    education: int
    alleles: tuple[int, int]

    def age(self, date: dt.date) -> float:
        return (date - self.birth).days / 365.25


def plan_adni(n: int, voxel_mm: float, seed: int) -> CohortPlan:
    """`n` participants; every second one comes three times, the others twice, one to three years apart."""
    rng = rng_of(seed, "adni")
    ages = spread_ages(n, *AGES, rng)
    scans: list[PlannedScan] = []
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for i in range(n):
        participant_rng = rng_of(seed, "adni", i)
        participant = _draw_participant(i, float(ages[i]), participant_rng)
        months = [0, 12, 36] if i % 2 == 0 else [0, int(participant_rng.choice([24, 36]))]
        for visit, month in enumerate(months):
            date = participant.baseline + dt.timedelta(days=round(month * 30.4375 + participant_rng.integers(-20, 21)))
            severity = participant.severity + participant.progression * month / 12
            scans.append(_visit(participant, date, severity, i, visit, voxel_mm, participant_rng))
            for name, values in _visit_rows(participant, severity, i, visit, participant_rng).items():
                seen = date + dt.timedelta(days=int(participant_rng.integers(-30, 31)))  # clinic is not the scan's day
                rows[name].append(_keys(participant, month, seen, name) | values)
    tables = {f"{name}{RELEASE}": _table(name, table) for name, table in rows.items() if table}
    return CohortPlan("ADNI", scans, tables)


def _draw_participant(i: int, age: float, rng: np.random.Generator) -> Participant:
    site = list(SITES)[i % len(SITES)]
    severity, progression = COURSES[i % len(COURSES)]
    baseline = dt.date(2010, 1, 15) + dt.timedelta(days=int(rng.integers(0, 1200)))
    birth = (baseline - dt.timedelta(days=round(age * 365.25))).replace(day=15)  # the table tells month and year only
    risk = 0.2 + 0.4 * severity
    return Participant(
        ptid=f"{site}_S_{413 + 271 * i:04d}",
        person=draw_person("MF"[i % 2], rng),
        birth=birth,
        baseline=baseline,
        severity=severity,
        progression=progression,
        education=int(rng.integers(10, 21)),
        alleles=tuple(sorted(int(4 if rng.random() < risk else rng.choice([2, 3], p=[0.1, 0.9])) for _ in range(2))),
    )


def _visit(
    who: Participant, date: dt.date, severity: float, i: int, visit: int, voxel_mm: float, rng: np.random.Generator
) -> PlannedScan:
    site = SITES[who.ptid[:3]]
    head = head_at(who.person, who.age(date), severity, head_pose(who.person, rng))
    # Columns to the posterior, rows to the inferior, slices to the left; the slab is turned a little with the head.
    grid = scanner_grid(3 * [voxel_mm], (195, 255, 255), "PIL", (0, 5, -18), tilt_deg=rng.normal(0, 2, 3))
    time = dt.time(9 + i % 8, int(rng.integers(60)), int(rng.integers(60)))
    image = 10_000 + 97 * i + visit
    known = {
        "subject": who.ptid,
        "session": date.strftime("%Y%m%d"),
        "age": who.age(date),
        "sex": who.person.sex,
        "diagnosis": diagnosis_of(severity),
        "severity": severity,
        "site": site.name,
        "vendor": site.vendor,
        "field_strength": site.field_strength,
    }
    folder = f"ADNI/{who.ptid}/MPRAGE/{date:%Y-%m-%d}_{time:%H_%M_%S}.0/I{image}"
    return PlannedScan(
        folder, head, draw_scan(site, "T1", rng), grid, known, _dicom_header(who, site, date, time, image)
    )


def _dicom_header(who: Participant, site: Site, date: dt.date, time: dt.time, image: int) -> dict[str, Any]:
    """Attributes of a series. Name, address and birthday are made up, to see that no such field leaves a header."""
    return {
        "file_prefix": f"ADNI_{who.ptid}_MR_MPRAGE_br_raw_{date:%Y%m%d}{time:%H%M%S}",
        "PatientName": f"Doe^Phantom^{who.ptid[-4:]}",
        "PatientID": who.ptid,
        "PatientBirthDate": f"{who.birth:%Y%m%d}",
        "PatientSex": who.person.sex,
        "PatientAge": f"{int(who.age(date)):03d}Y",
        "PatientAddress": "1 Secret Lane",
        "InstitutionName": "Hidden Hospital",
        "ReferringPhysicianName": "Who^Doctor",
        "Manufacturer": MANUFACTURER[site.vendor],
        "ManufacturerModelName": site.model,
        "MagneticFieldStrength": site.field_strength,
        "StudyDate": f"{date:%Y%m%d}",
        "SeriesDate": f"{date:%Y%m%d}",
        "AcquisitionDate": f"{date:%Y%m%d}",
        "StudyTime": f"{time:%H%M%S}",
        "SeriesTime": f"{time:%H%M%S}",
        "AcquisitionTime": f"{time:%H%M%S}",
        "SeriesDescription": "MPRAGE",
        "ProtocolName": "MPRAGE",
        "SeriesNumber": 2,
        "StudyID": str(image),
        "RepetitionTime": 2300.0,
        "EchoTime": 2.98,
        "InversionTime": 900.0,
        "FlipAngle": 9.0,
    }


def _visit_rows(who: Participant, severity: float, i: int, visit: int, rng: np.random.Generator) -> dict[str, Any]:
    """What each table says at a visit. -4 is missing; some scores are, and genes and demography are asked once."""
    scores = draw_scores(severity, rng)
    code = {"HC": 1, "MCI": 2, "AD": 3}[diagnosis_of(severity)]
    rows: dict[str, dict[str, Any]] = {
        "DXSUM": {"DIAGNOSIS": code},
        "MMSE": {"MMSCORE": -4 if (i, visit) == (1, 1) else scores["mmse"]},
        "CDR": {"CDGLOBAL": scores["cdr"], "CDRSB": scores["cdr_boxes"]},
        "MOCA": {"MOCA": -4 if i == 0 else scores["moca"]},
        "GDSCALE": {"GDTOTAL": -4 if (i, visit) == (2, 0) else scores["gds"]},
    }
    if visit == 0:
        rows["PTDEMOG"] = {
            "PTGENDER": 1 if who.person.sex == "M" else 2,
            "PTDOB": f"{who.birth:%m/%Y}",
            "PTDOBYY": who.birth.year,
            "PTHAND": 2 if i == 3 else 1,
            "PTMARRY": 1,
            "PTEDUCAT": -4 if i == 4 else who.education,
            "PTETHCAT": 2,
            "PTRACCAT": 5,
        }
        first, second = who.alleles
        rows["APOERES"] = {"APGEN1": first, "APGEN2": second, "GENOTYPE": f"{first}/{second}"}
    return rows


def _keys(who: Participant, month: int, date: dt.date, table: str) -> dict[str, Any]:
    screening = month == 0 and table in ("PTDEMOG", "APOERES", "DXSUM")
    return {
        "PHASE": "ADNI2",
        "PTID": who.ptid,
        "RID": int(who.ptid.split("_")[-1]),
        "VISCODE": "v01" if screening else f"v{3 + month // 6:02d}",  # ADNI2's own codes
        "VISCODE2": "sc" if screening else VISIT_CODES[month],
        DATE_COLUMN.get(table, "VISDATE"): date.isoformat(),
    }


def _table(name: str, rows: list[dict[str, Any]]) -> bytes:
    keys = ["PHASE", "PTID", "RID", "VISCODE", "VISCODE2", DATE_COLUMN.get(name, "VISDATE")]
    return csv_bytes(rows, keys + TABLES[name])
