"""The four trainings: curves, and the checks that say whether each learned."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Checks, Text, count, duration, number, plain, table
from braing3n.reporting.run import MODELS, AbsentError, Run
from braing3n.reporting.style import BLUE, GRID, MUTED, ORANGE, save_chart

TITLE = "Training"
LEAD = "Loss curves, and for each model the checks that show whether it learned. Failed checks are shown as failed."
NAMES = {
    "mae": "Masked autoencoder",
    "tokenizer": "Tokenizer",
    "dit": "Conditional DiT",
    "longitudinal": "Longitudinal DiT",
}
SPLITS = {"train": ("training", BLUE), "val": ("validation", ORANGE)}


def drawings(run: Run) -> dict[str, Drawing]:
    return {name: partial(_draw, run, name) for name in MODELS}


def _draw(run: Run, name: str, stem: Path) -> Drawn:
    import matplotlib.pyplot as plt

    source = f"models/{name}/history.parquet"
    history = run.rows(source)
    loss = history[history["metric"] == "loss"]
    if loss.empty:
        raise AbsentError("records no loss", file=source)
    figure, axis = plt.subplots(figsize=(7.2, 2.9))
    for split, (label, colour) in SPLITS.items():
        curve = loss[loss["split"] == split].sort_values("step")
        if len(curve):
            style = "-" if split == "train" else "o-"
            axis.plot(curve["step"], curve["value"], style, color=colour, label=label, markersize=3)
    for label, value in _baselines(run, name).items():
        axis.axhline(value, color=MUTED, linestyle="--", linewidth=1)
        axis.annotate(label, (0.995, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8.5)
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("loss")
    axis.grid(True, axis="y", color=GRID)
    axis.set_title(NAMES[name])
    axis.legend(loc="upper right", bbox_to_anchor=(1, 1.16), ncols=2)
    last = loss.sort_values("step").groupby("split")["value"].last()
    ends = ", ".join(f"{SPLITS[s][0]} {number(last[s])}" for s in SPLITS if s in last)
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"{NAMES[name]}: loss over {count(loss['step'].max())} optimizer steps. Last values: {ends}.",
        f"Loss curves of the {NAMES[name]}",
        [source, f"models/{name}/card.json"],
    )


def _baselines(run: Run, name: str) -> dict[str, float]:
    """Baseline values of the card's checks on a loss, to be drawn beside the curve."""
    card = run.cards.get(name, {})
    checks = [c for c in card.get("checks", []) if "loss" in c["name"] and c.get("baseline") is not None]
    return {c["name"].replace("_", " ") + ": baseline": float(c["baseline"]) for c in checks}


def checks_list(run: Run) -> list[Block]:
    items = []
    for name, card in run.cards.items():
        for check in card.get("checks", []):
            items.append(("yes" if check["passed"] else "no", f"{NAMES[name]}: {check_sentence(check)}"))
    if not items:
        raise AbsentError("no trained model with checks", file="models/<name>/card.json")
    return [Checks(items, "models/<name>/card.json")]


def check_sentence(check: dict) -> str:
    """A check in words with its numbers."""
    text = check["name"].replace("_", " ")
    text += f": {number(check['value'])} against {number(check.get('baseline'))}"
    return f"{text} ({check['detail']})" if check.get("detail") else text


def models_table(run: Run) -> list[Block]:
    rows = []
    for name, card in run.cards.items():
        metrics = {k: v for k, v in card.get("metrics", {}).items() if isinstance(v, int | float)}
        rows.append(
            {
                "model": NAMES[name],
                "metrics": ", ".join(f"{k} {number(v)}" for k, v in metrics.items()),
                "device": str(card.get("device", "")),
                "time": card.get("seconds"),
                "data hash": card.get("data_hash"),
                "made": card.get("created"),
            }
        )
    if not rows:
        return [Text("No model has been trained yet.")]
    formats = {"time": duration, "data hash": plain, "made": plain}
    return [table(pd.DataFrame(rows), "Trained models", "models/<name>/card.json", None, formats)]


PARTS = (checks_list, models_table)
