"""What came in, what was left out, where and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Fold, Notice, Text, count, percent, plural, table
from braing3n.reporting.run import STEPS, AbsentError, Run
from braing3n.reporting.style import BLUE, MUTED, ORANGE, VERMILLION, save_chart

TITLE = "What came in and what was left out"
LEAD = (
    "Every file found under a cohort's folder ends as kept, excluded (a decision, with its reason) or failed (an "
    "error, with its message). The three add up to what was found."
)
LEDGER = "metadata/ledger.parquet"
MAX_NAMED = 500
OUTCOMES = ("kept", "excluded", "failed")
STEP_OUTCOMES = {"ok": "done", "skipped": "not needed", "excluded": "excluded", "failed": "failed"}


def cohort_counts(ledger: pd.DataFrame) -> pd.DataFrame:
    """Per cohort: files found, kept, excluded and failed, largest cohort first."""
    counts = ledger.groupby(["cohort", "status"]).size().unstack(fill_value=0).reindex(columns=OUTCOMES, fill_value=0)
    counts.insert(0, "found", counts.sum(axis=1))
    return counts.sort_values("found", ascending=False, kind="stable").reset_index()


def reasons(ledger: pd.DataFrame) -> pd.DataFrame:
    """Per cohort, outcome, stage and reason: the number of files."""
    left_out = ledger[ledger["status"] != "kept"].fillna({"stage": "", "reason": ""})
    keys = ["cohort", "status", "stage", "reason"]
    return left_out.groupby(keys).size().reset_index(name="files").sort_values("files", ascending=False, kind="stable")


def step_counts(status: pd.DataFrame) -> pd.DataFrame:
    """Per cohort and step: volumes that reached it and what became of them there; `earlier` were lost before it."""
    lost = status["status"].isin(["excluded", "failed"])
    here = status["failed_step"].fillna("") == status["step"]
    outcome = status["status"].where(~lost | here, "earlier")
    counts = (
        status.assign(outcome=outcome)
        .groupby(["cohort", "step", "outcome"])
        .size()
        .unstack(fill_value=0)
        .reindex(columns=[*STEP_OUTCOMES, "earlier"], fill_value=0)
        .reset_index()
    )
    counts["entered"] = counts[list(STEP_OUTCOMES)].sum(axis=1)
    counts["step"] = pd.Categorical(counts["step"], STEPS, ordered=True)
    return counts.sort_values(["cohort", "step"]).astype({"step": str}).reset_index(drop=True)


def drawings(run: Run) -> dict[str, Drawing]:
    return {"flow": lambda stem: _draw_flow(run, stem)}


def _draw_flow(run: Run, stem: Path) -> Drawn:
    import matplotlib.pyplot as plt

    counts = cohort_counts(run.ledger)[::-1]
    figure, axes = plt.subplots(figsize=(9, 1.0 + 0.34 * len(counts)))
    left = np.zeros(len(counts))
    total = counts["found"].to_numpy()
    for outcome, colour in zip(OUTCOMES, (BLUE, ORANGE, VERMILLION), strict=True):
        share = counts[outcome].to_numpy() / total
        axes.barh(counts["cohort"], share, left=left, color=colour, label=outcome, height=0.72)
        left += share
    for row, (_, cohort) in enumerate(counts.iterrows()):
        text = " / ".join(f"{cohort[outcome]:,}" for outcome in OUTCOMES)
        axes.text(1.01, row, text, va="center", fontsize=9, color=MUTED)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_xlabel("share of the files found")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3)
    found = int(total.sum())
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"Files found in each cohort and what became of them; at the right, files kept / excluded / failed. "
        f"n = {plural(found, 'file')} in {plural(len(counts), 'cohort')}.",
        "Stacked bars: share of each cohort's files kept, excluded and failed",
        [LEDGER],
    )


def counts_table(run: Run) -> list[Block]:
    counts = cohort_counts(run.ledger)
    total = counts.sum(numeric_only=True).to_dict() | {"cohort": "all"}
    counts = pd.concat([counts, pd.DataFrame([total])], ignore_index=True)
    counts["share"] = [percent(k, f) for k, f in zip(counts["kept"], counts["found"], strict=True)]
    labels = {"cohort": "cohort", "found": "found", **{o: o for o in OUTCOMES}, "share": "kept, share"}
    formats = {name: count for name in ("found", *OUTCOMES)} | {"share": str}
    return [table(counts, "Files of each cohort", LEDGER, labels, formats)]


def failed_table(run: Run) -> list[Block]:
    """Every failure by name, in sight."""
    failed = run.ledger.query("status == 'failed'")
    if failed.empty:
        return [Text("No file failed.")]
    return _named(failed, f"{plural(len(failed), 'file')} failed")


def excluded_table(run: Run) -> list[Block]:
    """Reasons with counts in sight, every excluded file behind a fold."""
    ledger = run.ledger
    excluded = ledger.query("status == 'excluded'")
    if excluded.empty:
        return [Text("No file was excluded.")]
    summary = reasons(excluded)
    labels = {"cohort": "cohort", "stage": "stage", "reason": "reason", "files": "files"}
    named = _named(excluded, f"{plural(len(excluded), 'file')} excluded")
    return [
        table(summary.head(100), "Reasons for exclusion", LEDGER, labels, {"files": count}),
        Fold(f"Name all {plural(len(excluded), 'excluded file')}", named),
    ]


def _named(rows: pd.DataFrame, caption: str) -> list[Block]:
    labels = {"cohort": "cohort", "path": "path", "volume_id": "volume", "stage": "stage", "reason": "reason"}
    shown = rows.sort_values(["cohort", "path"]).head(MAX_NAMED)
    blocks: list[Block] = [table(shown, caption, LEDGER, labels)]
    if len(rows) > MAX_NAMED:
        blocks.append(
            Notice(f"The first {MAX_NAMED} of {len(rows):,} are named here; all stand in {LEDGER}.", "warning")
        )
    return blocks


def steps_table(run: Run) -> list[Block]:
    """A row a cohort, a column a step: what the step did with the volumes that reached it."""
    counts = step_counts(run.status())
    counts["cell"] = counts.apply(_step_cell, axis=1)
    steps = [step for step in STEPS if step in set(counts["step"])]
    frame = counts.pivot(index="cohort", columns="step", values="cell")[steps].reset_index()
    note = "Not needed: the volume arrived with this step already done, and was carried on unchanged."
    source = "status/<step>/<cohort>/<shard>.parquet"
    return [table(frame, "Preprocessing, step by step (volumes)", source), Text(note)]


def _step_cell(row: pd.Series) -> str:
    parts = [f"{row[outcome]:,} {words}" for outcome, words in STEP_OUTCOMES.items() if row[outcome]]
    return ", ".join(parts) or "none reached it"


def reconciliation(run: Run) -> list[Block]:
    """Say so if the ledger and the index disagree: a file that vanished without a reason is a fault."""
    try:
        index = run.rows("index/volumes.parquet")
    except AbsentError:
        return []
    missing = set(index["volume_id"]) - set(run.ledger["volume_id"].dropna())
    if not missing:
        return []
    names = ", ".join(sorted(missing)[:10])
    return [Notice(f"{plural(len(missing), 'indexed volume')} without a row in the ledger: {names}", "problem")]


PARTS = (counts_table, failed_table, excluded_table, steps_table, reconciliation)
