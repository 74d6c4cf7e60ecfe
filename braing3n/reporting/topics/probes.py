"""Linear probes of frozen features: what each encoder lets be read from a scan."""

from __future__ import annotations

import pandas as pd

from braing3n.encoders.registry import weights_needed
from braing3n.geometry import MODALITIES
from braing3n.reporting import probe_charts
from braing3n.reporting.page import DASH, Block, Fold, Notice, Table, Text, count, fixed, number, plural
from braing3n.reporting.probe_charts import (
    METRICS,
    PAPER,
    POOLED,
    PUBLISHED,
    RECOMMENDED,
    SOURCE,
    UNINFORMED,
    encoders,
    protocols,
)
from braing3n.reporting.run import Run

TITLE = "Linear probes"
LEAD = (
    "Out-of-fold predictions from frozen features; no person is in two folds. Below each score: its 95 % interval from "
    "a bootstrap over persons. A dash is a cell with too few persons; in brackets, those of its smallest class."
)
CONTEXT = {  # shown metric: heading, and the metrics that say it
    "auc": ("positive", {"prevalence": lambda v: f"{100 * v:.0f} %", "classes": lambda v: f"{v:.0f} classes"}),
    "r2": ("SD of target", {"target_sd": number}),
    "mae": ("SD of target", {"target_sd": number}),
}
BEST = "best modality"
DIFFERENCE = "_minus_"

drawings = probe_charts.drawings


def unavailable_notice(run: Run) -> list[Block]:
    rows = run.rows(SOURCE)
    names = list(rows.loc[rows["metric"] == "unavailable", "encoder"])
    blocks: list[Block] = []
    if names:
        blocks.append(Notice(f"Not probed, no features: {', '.join(names)}.", "absent"))
    for name in names:
        remedy = weights_needed(name)
        if remedy:
            blocks.append(Notice(f"{name} needs its weights: {remedy}.", "absent"))
    return blocks


def paper_table(run: Run) -> list[Block]:
    """Every score that the paper's text states, beside this run's."""
    rows = run.rows(SOURCE)
    scores = rows[rows["slice"].notna()].drop_duplicates(["table", "encoder", "task", "slice", "metric"])
    found = scores.set_index(["table", "encoder", "task", "slice", "metric"])
    body = []
    for stated in rows[rows["table"] == PAPER].itertuples():
        decimals = METRICS[stated.metric][1]
        bound = "> " if pd.notna(stated.ci_low) else ""
        keys = [(name, stated.encoder, stated.task, stated.slice, stated.metric) for name in (PUBLISHED, RECOMMENDED)]
        own = [_score(found.loc[key], stated.metric) if key in found.index else DASH for key in keys]
        persons = found.loc[[key for key in keys if key in found.index], "n_subjects"].dropna()
        shown = [stated.task, stated.encoder, stated.slice, METRICS[stated.metric][0]]
        body.append([*shown, bound + fixed(stated.value, decimals), *own, count(persons.max())])
    if not body:
        return []
    columns = ["task", "encoder", "slice", "metric", "paper", f"'{PUBLISHED}'", f"'{RECOMMENDED}'", "persons"]
    caption = "Beside the paper: the scores that its text states; 'pooled' where it does not say the modality"
    return [Table(caption, columns, body, SOURCE, frozenset(range(4, len(columns))))]


def score_tables(run: Run) -> list[Block]:
    """A table a metric: tasks by encoders. The recommended protocol, the paper's beside it, all else behind folds."""
    rows = run.rows(SOURCE)
    blocks: list[Block] = []
    for protocol in protocols(rows):
        own = rows[rows["table"] == protocol]
        part = own["slice"]
        pooled = _metric_tables(own[part == POOLED], protocol)
        blocks += pooled if protocol in (RECOMMENDED, PUBLISHED) else [Fold(f"Protocol '{protocol}'", pooled)]
        inside = part.str.startswith(f"{POOLED}, ", na=False)
        single = part.isin([*MODALITIES, BEST])
        folds = {
            "by modality": own[single],
            "within a cohort and with a cohort left out": own[~(inside | single | (part == POOLED))],
            "by sex, age, site and diagnosis": own[inside],
        }
        for name, members in folds.items():
            tables = _metric_tables(members, protocol)
            if tables:
                blocks.append(Fold(f"Protocol '{protocol}', {name}", tables))
    return blocks


def _metric_tables(rows: pd.DataFrame, protocol: str) -> list[Block]:
    found = [metric for metric in METRICS if (rows["metric"] == metric).any()]
    return [_scores(rows, metric, f"{METRICS[metric][0]}, protocol '{protocol}'") for metric in found]


def _scores(rows: pd.DataFrame, metric: str, caption: str) -> Table:
    """Tasks (and slices) by encoders: a score with its interval below, or a dash with the persons there are."""
    names = encoders(rows)
    by_slice = (rows["slice"] != POOLED).any()
    body = []
    for (task, part), own in rows.groupby(["task", "slice"], sort=False):
        if not (own["metric"] == metric).any():
            continue
        scores = {row.encoder: _score(row, metric) for row in own[own["metric"] == metric].itertuples()}
        cells = [scores.get(name, DASH) for name in names]
        sizes = [count(own["n_subjects"].max()), count(own["n_scans"].max()), _context(own, metric)]
        body.append([task, *([part] if by_slice else []), *sizes, *cells])
    columns = ["task", *(["slice"] if by_slice else []), "persons", "scans", CONTEXT[metric][0], *names]
    return Table(caption, columns, body, SOURCE, frozenset(range(2 if by_slice else 1, len(columns))))


def _context(rows: pd.DataFrame, metric: str) -> str:
    """What the score is to be read beside: the positive class's share (or classes), the spread of the target."""
    for name, write in CONTEXT[metric][1].items():
        values = rows.loc[rows["metric"] == name, "value"].dropna()
        if len(values):
            return write(values.iloc[0])
    too_few = rows.loc[rows["metric"] == "too_few", "value"].dropna()
    return f"too few ({count(too_few.max())})" if len(too_few) else DASH


def _score(row, metric: str) -> str | tuple[str, str]:
    if pd.isna(row.value):
        return DASH
    decimals = METRICS[metric][1]
    if pd.isna(row.ci_low) or pd.isna(row.ci_high):
        return fixed(row.value, decimals)
    return fixed(row.value, decimals), f"{fixed(row.ci_low, 2)} to {fixed(row.ci_high, 2)}"


def difference_tables(run: Run) -> list[Block]:
    """The first encoder less each other, with the p-value adjusted over the panel's tasks."""
    rows = run.rows(SOURCE)
    rows = rows[(rows["slice"] == POOLED) & rows["metric"].str.contains(DIFFERENCE)]
    blocks: list[Block] = []
    for protocol in protocols(rows):
        own = rows[rows["table"] == protocol]
        values = own.drop_duplicates(["task", "metric"]).set_index(["task", "metric"])
        first = own["encoder"].iloc[0]
        others = [name for name in encoders(run.rows(SOURCE)) if name != first]
        body = []
        for task in dict.fromkeys(own["task"]):
            metric = next(m for m in own.loc[own["task"] == task, "metric"]).partition(DIFFERENCE)[0]
            cells = [_difference(values, task, f"{metric}{DIFFERENCE}{name}") for name in others]
            body.append([task, METRICS[metric][0], *cells])
        caption = f"{first} less each other encoder on the same resamples, protocol '{protocol}'; p after Holm"
        columns = ["task", "metric", *others]
        table = Table(caption, columns, body, SOURCE, frozenset(range(2, len(columns))))
        blocks.append(Fold(f"Protocol '{protocol}', differences between encoders", [table]))
    return blocks


def _difference(values: pd.DataFrame, task: str, name: str) -> str | tuple[str, str]:
    if (task, name) not in values.index or pd.isna(values.loc[(task, name), "value"]):
        return DASH
    row = values.loc[(task, name)]
    holm = (task, f"{name}_p_holm")
    p = f", p {number(values.loc[holm, 'value'], 2)}" if holm in values.index else ""
    return fixed(row["value"], 3), f"{fixed(row['ci_low'], 2)} to {fixed(row['ci_high'], 2)}{p}"


def other_metrics(run: Run) -> list[Block]:
    """All metrics that the tables above leave out stay in the file; say which."""
    rows = run.rows(SOURCE)
    shown = {*METRICS, "prevalence", "classes", "target_sd", "too_few", "unavailable"}
    left = sorted(name for name in set(rows["metric"].dropna()) - shown if DIFFERENCE not in name)
    return [Text(f"Also in {SOURCE}: {', '.join(left)}.")] if left else []


def statement(run: Run) -> list[tuple[str, str]]:
    """Of the classifications with the trained encoder, how many are told apart from chance."""
    rows = run.rows(SOURCE)
    protocol = protocols(rows)[0]
    own = rows[(rows["table"] == protocol) & (rows["slice"] == POOLED) & (rows["encoder"] == "mae")]
    auc = own[(own["metric"] == "auc")]
    known = auc[auc["ci_low"].notna()]
    if known.empty:
        return [("none", f"Probes: no classification had enough persons ({protocol}).")]
    above = known[known["ci_low"] > UNINFORMED["auc"]]
    best = known.loc[known["value"].idxmax()]
    shown = f"{fixed(best['value'], 2)} [{fixed(best['ci_low'], 2)}, {fixed(best['ci_high'], 2)}]"
    text = (
        f"Probes of the MAE's features ({protocol}): in {len(above)} of {plural(len(known), 'classification')} the "
        f"interval of the AUC lies above {number(UNINFORMED['auc'])}; highest {best['task']}, {shown}."
    )
    dashes = len(auc) - len(known)
    return [("none", text + (f" {dashes} had too few persons." if dashes else ""))]


PARTS = (unavailable_notice, paper_table, score_tables, difference_tables, other_metrics)
