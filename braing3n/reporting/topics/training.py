"""The four trainings: curves, and the checks that say whether each learned."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from braing3n.reporting.drawing import Drawing, Drawn
from braing3n.reporting.page import Block, Checks, Table, count, duration, number, plain, plural
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
BASELINE = re.compile(r".*\b(?:loss|error) below(?: that of)?(?: the)? ")
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
    figure, axis = plt.subplots(figsize=(5, 3.1))
    for split, (label, colour) in SPLITS.items():
        curve = loss[loss["split"] == split].sort_values("step")
        if len(curve):
            style = "-" if split == "train" and len(curve) > 2 else "o-"
            axis.plot(curve["step"], curve["value"], style, color=colour, label=label, markersize=3)
    for (label, value), style in zip(baselines(run, name, loss["value"].max()), ("--", ":", "-.") * 2, strict=False):
        axis.axhline(value, color=MUTED, linestyle=style, linewidth=1.1, label=label)
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("loss")
    axis.grid(True, axis="y", color=GRID)
    axis.set_title(NAMES[name])
    figure.legend(loc="outside lower left", ncols=2)
    last = loss.sort_values("step").groupby("split")["value"].last()
    ends = ", ".join(f"{SPLITS[s][0]} {number(last[s])}" for s in SPLITS if s in last)
    return Drawn(
        [p.name for p in save_chart(figure, stem)],
        f"{NAMES[name]}: loss over {plural(int(loss['step'].max()), 'optimizer step')}. Last values: {ends}.",
        f"Loss curves of the {NAMES[name]}",
        [source, f"models/{name}/card.json"],
        half=True,
    )


def baselines(run: Run, name: str, highest: float) -> list[tuple[str, float]]:
    """What the card's checks on a loss or an error compare with; those far above the curve would flatten it."""
    found = []
    for check in run.cards.get(name, {}).get("checks", []):
        value = check.get("baseline")
        against = BASELINE.match(check["name"])
        if against and value is not None and value < 3 * highest:
            found.append((check["name"][against.end() :], float(value)))
    return found


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
    """A column a model."""
    if not run.cards:
        raise AbsentError("no model has been trained yet", file="models/")
    rows = [[label, *(write(card) for card in run.cards.values())] for label, write in FACTS.items()]
    columns = ["", *(NAMES[name] for name in run.cards)]
    return [Table("Trained models", columns, rows, "models/<name>/card.json", frozenset(range(1, len(columns))))]


def _gib(size: float | None) -> str:
    return plain(None) if size is None else f"{size / 2**30:.1f} GiB"


FACTS: dict[str, Callable[[dict], str]] = {
    "parameters": lambda card: count(card.get("parameters")),
    "training samples": lambda card: count(card.get("training_samples")),
    "epochs": lambda card: count(card.get("epochs")) + (" (stopped early)" if card.get("stopped_early") else ""),
    "training loss": lambda card: number(card.get("metrics", {}).get("train_loss")),
    "validation loss": lambda card: number(card.get("metrics", {}).get("val_loss")),
    "time": lambda card: duration(card.get("seconds")),
    "volumes/s": lambda card: number(card.get("volumes_per_second")),
    "peak memory": lambda card: _gib(card.get("peak_memory_bytes")),
    "GPU-hours": lambda card: number(card.get("gpu_hours")),
    "processes": lambda card: count(card.get("processes")),
    "made (UTC)": lambda card: plain(card.get("created"))[:16].replace("T", " "),
    "data hash": lambda card: plain(card.get("data_hash"))[:16],
}


def weights_list(run: Run) -> list[Block]:
    lines = [
        f"{NAMES[name]}: weights of {card.get('weights_from')}; {card.get('device')}."
        for name, card in run.cards.items()
    ]
    return [Checks([("none", line) for line in lines], "models/<name>/card.json")] if lines else []


PARTS = (checks_list, models_table, weights_list)
