"""The corpus in numbers, beside those of the paper (Appendix A, Table 3 and the text below it)."""

from __future__ import annotations

import pandas as pd

from braing3n.cohorts.definition import known_cohorts, load_definition

PAPER_DIAGNOSES = {
    "HC": 15274,
    "MCI": 5808,
    "GBM": 4028,
    "PD": 3381,
    "Pediatric-Mixed": 2130,
    "AD": 1458,
    "ASD": 1061,
    "Glioma": 396,
    "SCZ": 328,
    "ADHD": 247,
}
# Percent of all volumes with a value (paper, Appendix A).
PAPER_COVERAGE = {
    "age_at_scan": 90,
    "sex": 90,
    "diagnosis": 96,
    "cdr": 34,
    "mmse": 41,
    "moca": 18,
    "apoe": 41,
    "tumour_grade": 8,
    "idh1": 7,
    "mgmt": 6,
    "site": 78,
}


def corpus_summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a cohort, those of the paper first and in its order, then a total.

    Args:
        table: index or metadata table.

    Returns:
        Columns `cohort, volumes, paper_volumes, subjects, paper_subjects, modalities, paper_modalities, diagnoses,
        paper_diagnoses, equal`; counts of the paper are missing for cohorts that it does not have. `equal` is whether
        volumes, subjects and modalities are the paper's.
    """
    papers = {name: load_definition(name).paper for name in known_cohorts()}
    ordered = sorted((n for n in papers if papers[n] is not None), key=lambda name: -papers[name].volumes)
    present = set(table["cohort"])
    names = [name for name in ordered if name in present] + sorted(present - set(ordered))
    rows = [_row(name, table[table["cohort"] == name], papers.get(name)) for name in names]
    # The paper counts subjects cohort by cohort, whoever they are; so does the total.
    total: dict = {"cohort": "Total"}
    for key in ("volumes", "subjects", "paper_volumes", "paper_subjects"):
        total[key] = sum(row[key] for row in rows if row[key] is not None)
    total["modalities"] = " ".join(m for m in ("T1", "T2", "FLAIR", "T1c") if (table["modality"] == m).any())
    result = pd.DataFrame([*rows, total]).astype({key: "Int64" for key in total if key not in ("cohort", "modalities")})
    columns = ["volumes", "paper_volumes", "subjects", "paper_subjects", "modalities", "paper_modalities"]
    return result.reindex(columns=["cohort", *columns, "diagnoses", "paper_diagnoses", "equal"])


def _row(name: str, rows: pd.DataFrame, paper) -> dict:
    modalities = [m for m in ("T1", "T2", "FLAIR", "T1c") if (rows["modality"] == m).any()]
    result = {
        "cohort": name,
        "volumes": len(rows),
        "paper_volumes": paper.volumes if paper else None,
        "subjects": rows["subject_id"].nunique(),
        "paper_subjects": paper.subjects if paper else None,
        "modalities": " ".join(modalities),
        "paper_modalities": " ".join(paper.modalities) if paper else None,
        "diagnoses": " ".join(rows["diagnosis"].value_counts().index),
        "paper_diagnoses": " ".join(paper.diagnoses) if paper else None,
    }
    keys = ("volumes", "subjects", "modalities")
    result["equal"] = all(result[key] == result[f"paper_{key}"] for key in keys) if paper else None
    return result


def diagnosis_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Volumes and persons a diagnosis beside the paper's volumes; labels outside its ten classes come last."""
    counts = table["diagnosis"].fillna("unknown").value_counts()
    persons = table.assign(diagnosis=table["diagnosis"].fillna("unknown")).groupby("diagnosis")["person_id"].nunique()
    names = [*PAPER_DIAGNOSES, *sorted(set(counts.index) - set(PAPER_DIAGNOSES) - {"unknown"}), "unknown"]
    rows = [(name, int(counts.get(name, 0)), int(persons.get(name, 0)), PAPER_DIAGNOSES.get(name)) for name in names]
    result = pd.DataFrame(rows, columns=["diagnosis", "volumes", "persons", "paper_volumes"])
    return result.astype({"paper_volumes": "Int64"})


def coverage_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Percent of volumes with a value, beside the paper's."""
    rows = [(name, 100 * float(table[name].notna().mean()), percent) for name, percent in PAPER_COVERAGE.items()]
    return pd.DataFrame(rows, columns=["field", "percent", "paper_percent"]).round(1)
