"""Result tables that no other section shows."""

from __future__ import annotations

from braing3n.reporting.drawing import Drawing
from braing3n.reporting.page import Block
from braing3n.reporting.results import long_table
from braing3n.reporting.run import Run

TITLE = "Further results"
LEAD = "Result tables of this run that have no section of their own, as they are."
SHOWN_ELSEWHERE = ("probes", "reconstruction", "frechet", "memorization", "memorization_pairs", "forecast")


def drawings(run: Run) -> dict[str, Drawing]:
    return {}


def other_tables(run: Run) -> list[Block]:
    names = sorted(path.stem for path in (run.results / "tables").glob("*.parquet"))
    sources = [f"tables/{name}.parquet" for name in names if name not in SHOWN_ELSEWHERE]
    return [long_table(run.rows(source), source.split("/")[1], source) for source in sources]


PARTS = (other_tables,)
