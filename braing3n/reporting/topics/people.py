"""Who was scanned: age, sex, diagnosis, modality, site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.cohorts.summary import corpus_summary
from braing3n.geometry import MODALITIES
from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Text, count, fixed, percent, plural, table
from braing3n.reporting.run import Run
from braing3n.reporting.style import BLUE, MUTED, ORANGE, save_chart

TITLE = "Who was scanned"
LEAD = "Persons, visits and volumes that reached the volume store. Unknown values are counted as unknown, not dropped."
SOURCE = "metadata/volumes.parquet"
FIELDS = {
    "age_at_scan": "age at scan",
    "sex": "sex",
    "diagnosis": "diagnosis",
    "site": "site",
    "vendor": "scanner vendor",
    "field_strength": "field strength",
    "cdr": "CDR",
    "mmse": "MMSE",
    "moca": "MoCA",
    "gds": "GDS",
    "updrs3": "UPDRS-III",
    "scopa_aut": "SCOPA-AUT",
    "apoe": "APOE",
    "tumour_grade": "tumour grade",
    "idh1": "IDH1",
    "mgmt": "MGMT",
    "education_years": "education",
    "handedness": "handedness",
}


def visits(volumes: pd.DataFrame) -> pd.DataFrame:
    """One row a visit: age, sex and diagnosis belong to it, not to each modality."""
    return volumes.drop_duplicates(["cohort", "subject_id", "session_id"])


def drawings(run: Run) -> dict[str, Drawing]:
    return {"ages": lambda stem: _draw_ages(run, stem), "diagnoses": lambda stem: _draw_diagnoses(run, stem)}


def _draw_ages(run: Run, stem: Path) -> Drawn:
    """Age histograms by sex, one panel a cohort on one scale."""
    import matplotlib.pyplot as plt

    people = visits(run.volumes)
    known = people.dropna(subset=["age_at_scan"])
    cohorts = sorted(known["cohort"].unique())
    columns = min(4, max(1, len(cohorts)))
    rows = -(-max(1, len(cohorts)) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(9, 0.6 + 1.7 * rows), sharex=True, squeeze=False, layout="constrained"
    )
    low = 5 * np.floor(known["age_at_scan"].min() / 5) if len(known) else 0
    high = 5 * np.ceil((known["age_at_scan"].max() + 0.01) / 5) if len(known) else 100
    bins = np.arange(low, high + 5, 5)
    groups = {"F": ("female", ORANGE), "M": ("male", BLUE), None: ("sex unknown", MUTED)}
    for cohort, axis in zip(cohorts, axes.flat, strict=False):
        own = known[known["cohort"] == cohort]
        parts = [own.loc[own["sex"].isna() if sex is None else own["sex"] == sex, "age_at_scan"] for sex in groups]
        axis.hist(
            parts, bins, stacked=True, color=[c for _, c in groups.values()], label=[n for n, _ in groups.values()]
        )
        axis.set_title(f"{cohort} (n = {len(own):,})")
        axis.yaxis.get_major_locator().set_params(integer=True)
    for axis in axes.flat[len(cohorts) :]:
        axis.set_visible(False)
    figure.supxlabel("age at scan [years]", fontsize=9.5)
    figure.supylabel("visits", fontsize=9.5)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=3)
    unknown = len(people) - len(known)
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Age at scan by sex, in bins of 5 years, stacked. n = {plural(len(known), 'visit')} of known age"
        f"{f'; age unknown for {unknown:,}' if unknown else ''}.",
        "Age histograms by sex, one panel a cohort",
        [SOURCE],
    )


def _draw_diagnoses(run: Run, stem: Path) -> Drawn:
    import matplotlib.pyplot as plt

    people = visits(run.volumes)
    counts = people["diagnosis"].fillna("unknown").value_counts()[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.28 * len(counts)))
    bars = axes.barh(counts.index.astype(str), counts.to_numpy(), color=BLUE, height=0.72)
    axes.bar_label(bars, [f"{n:,}" for n in counts], padding=4, fontsize=9)
    axes.set_xlabel("visits")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.08)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Diagnosis at each visit. n = {plural(len(people), 'visit')} of "
        f"{plural(people['person_id'].nunique(), 'person')}.",
        "Bars: number of visits with each diagnosis",
        [SOURCE],
    )


def cohort_table(run: Run) -> list[Block]:
    volumes = run.volumes
    rows = [_describe(name, own) for name, own in volumes.groupby("cohort")]
    if len(rows) > 1:
        rows.append(_describe("all", volumes))
    frame = pd.DataFrame(rows)
    formats = {name: count for name in ("persons", "visits", "volumes", *MODALITIES, "sites")}
    formats |= {"age, mean (range)": str, "female": str}
    return [table(frame, "Cohorts in the volume store", SOURCE, {c: c for c in frame.columns}, formats)]


def _describe(name: str, volumes: pd.DataFrame) -> dict[str, object]:
    one = visits(volumes)
    ages = one["age_at_scan"].dropna()
    span = f"{fixed(ages.mean(), 1)} ({fixed(ages.min(), 0)}–{fixed(ages.max(), 0)})" if len(ages) else "–"
    return {
        "cohort": name,
        "persons": volumes["person_id"].nunique(),
        "visits": len(one),
        "volumes": len(volumes),
        **{modality: int((volumes["modality"] == modality).sum()) for modality in MODALITIES},
        "age, mean (range)": span,
        "female": percent((one["sex"] == "F").sum(), one["sex"].notna().sum()),
        "sites": one.dropna(subset=["site"]).groupby("cohort")["site"].nunique().sum(),
    }


def coverage_table(run: Run) -> list[Block]:
    """Share of volumes with a value, by field and cohort."""
    volumes = run.volumes
    fields = {name: label for name, label in FIELDS.items() if name in volumes.columns and volumes[name].notna().any()}
    empty = [label for name, label in FIELDS.items() if name not in fields]
    share = volumes[list(fields)].notna().groupby(volumes["cohort"]).mean().T
    share.insert(0, "all", volumes[list(fields)].notna().mean())
    frame = share.rename(index=fields).rename_axis("field").reset_index()
    formats = {name: (lambda value: f"{100 * value:.0f} %") for name in frame.columns[1:]}
    blocks: list[Block] = [table(frame, "Volumes for which a field is known", SOURCE, None, formats)]
    if empty:
        blocks.append(Text(f"Known for no volume: {', '.join(empty)}."))
    return blocks


def split_table(run: Run) -> list[Block]:
    volumes = run.volumes
    grouped = volumes.groupby("split")
    frame = pd.DataFrame({"persons": grouped["person_id"].nunique(), "volumes": grouped.size()})
    frame = frame.reindex(["train", "val", "test"]).dropna(how="all").rename_axis("split").reset_index()
    shared = volumes.groupby("person_id")["split"].nunique().gt(1).sum()
    verdict = (
        "No person is in two splits." if not shared else f"{plural(int(shared), 'person')} in more than one split!"
    )
    formats = {"persons": count, "volumes": count}
    return [table(frame, f"Splits by person. {verdict}", SOURCE, None, formats)]


def paper_table(run: Run) -> list[Block]:
    """The corpus beside Table 3 of the paper, cohort by cohort."""
    frame = corpus_summary(run.volumes).drop(columns=["diagnoses", "paper_diagnoses", "equal"])
    columns = {
        "paper_volumes": "volumes, paper",
        "paper_subjects": "subjects, paper",
        "paper_modalities": "modalities, paper",
    }
    formats = {name: count for name in ("volumes", "volumes, paper", "subjects", "subjects, paper")}
    return [table(frame.rename(columns=columns), "Corpus beside the paper's Table 3", SOURCE, None, formats)]


PARTS = (cohort_table, coverage_table, split_table, paper_table)
