"""The top of the page: what this run is, and in plain words what came out of it."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import braing3n
from braing3n.reporting.page import Block, Checks, Notice, count, duration, number, plural
from braing3n.reporting.run import AbsentError, Run, one_line
from braing3n.reporting.topics import cost, distances, forecast, memorization, probes, training

Mark = tuple[str, str]


def subtitle(run: Run, now: datetime.datetime) -> str:
    try:
        cohorts = ", ".join(sorted(run.volumes["cohort"].unique()))
    except Exception:  # the sections say what is wrong with the table; the title must stand
        cohorts = "no cohort in the volume store"
    return f"{cohorts}. Written {now:%Y-%m-%d %H:%M} UTC."


def warnings(run: Run) -> list[Block]:
    """What a reader must know before believing any number."""
    if not run.phantom:
        return []
    try:
        present = sorted(set(run.phantom) & set(run.volumes["cohort"]))
    except AbsentError:
        present = sorted(run.phantom)
    if not present:
        return []
    text = (
        f"{', '.join(present)}: simulated. These phantom scans are made from an average head with planted effects, "
        "in the layout of the cohorts they are named after. Numbers on them show that the software works; they say "
        "nothing about people or about how well the models do on real scans."
    )
    return [Notice(text, "warning")]


def facts(run: Run) -> list[tuple[str, str, str]]:
    """Name, value and small print of the tiles at the top; what cannot be read is left out, its section says why."""
    tiles: list[tuple[str, str, str]] = []
    for tile in (_volumes, _persons, _left_out, _flagged, _checks, _cost, _version):
        try:
            tiles.append(tile(run))
        except Exception:  # idem
            continue
    return tiles


def _volumes(run: Run) -> tuple[str, str, str]:
    volumes = run.volumes
    by = volumes["modality"].value_counts()
    return "volumes", count(len(volumes)), ", ".join(f"{count(n)} {name}" for name, n in by.items())


def _persons(run: Run) -> tuple[str, str, str]:
    volumes = run.volumes
    visits = len(volumes.drop_duplicates(["cohort", "subject_id", "session_id"]))
    cohorts = volumes["cohort"].nunique()
    return "persons", count(volumes["person_id"].nunique()), f"{plural(visits, 'visit')}, {plural(cohorts, 'cohort')}"


def _left_out(run: Run) -> tuple[str, str, str]:
    status = run.ledger["status"].value_counts()
    excluded, failed = int(status.get("excluded", 0)), int(status.get("failed", 0))
    return "left out", count(excluded + failed), f"{count(excluded)} excluded, {count(failed)} failed"


def _flagged(run: Run) -> tuple[str, str, str]:
    volumes = run.volumes
    return "flagged by QC", count(volumes["qc_flags"].fillna("").ne("").sum()), f"of {plural(len(volumes), 'volume')}"


def _checks(run: Run) -> tuple[str, str, str]:
    checks = [check for card in run.cards.values() for check in card.get("checks", [])]
    if not checks:
        raise AbsentError("no checks")
    passed = sum(bool(check["passed"]) for check in checks)
    return "training checks passed", f"{passed} of {len(checks)}", plural(len(run.cards), "model")


def _cost(run: Run) -> tuple[str, str, str]:
    rules = cost.by_rule(cost.read_benchmarks(run.benchmarks))
    if rules.empty:
        raise AbsentError("no benchmarks")
    hours = cost.gpu_hours(run.cards)
    jobs = plural(int(rules["jobs"].sum()), "job")
    return "wall time, all jobs", duration(rules["s"].sum()), f"{jobs}, {number(hours) if hours else 'no'} GPU-hours"


def _version(run: Run) -> tuple[str, str, str]:
    seeds = sorted({str(v) for k, v in cost.walk(run.config or {}) if k.endswith("seed")})
    return "BrainG3N", braing3n.__version__, f"seeds {', '.join(seeds)}" if seeds else ""


def parts(run: Run) -> list[Callable[[], list[Block]]]:
    """The statements of 'In short', each from its own table."""
    return [lambda: [Checks([mark for statement in STATEMENTS for mark in _safe(statement, run)])]]


def _safe(statement: Callable[[Run], list[Mark]], run: Run) -> list[Mark]:
    try:
        return statement(run)
    except AbsentError as error:
        return [("none", f"{statement.__doc__}: {one_line(error)}.")]
    except Exception as error:  # idem
        return [("no", f"{statement.__doc__}: {one_line(error)}")]


def intake_statement(run: Run) -> list[Mark]:
    """Intake"""
    status = run.ledger["status"].value_counts()
    found, kept = len(run.ledger), int(status.get("kept", 0))
    excluded, failed = int(status.get("excluded", 0)), int(status.get("failed", 0))
    text = f"{kept:,} of {plural(found, 'file')} found became stored volumes; "
    text += f"{excluded:,} were excluded, {failed:,} failed."
    return [("none" if failed else "yes", text + (" Each failure is named below." if failed else ""))]


def quality_statement(run: Run) -> list[Mark]:
    """Quality"""
    volumes = run.volumes
    flagged = int(volumes["qc_flags"].fillna("").ne("").sum())
    if not flagged:
        return [("yes", f"QC flags none of {plural(len(volumes), 'volume')}.")]
    return [("none", f"QC flags {flagged:,} of {plural(len(volumes), 'volume')} for a look.")]


def training_statements(run: Run) -> list[Mark]:
    """Training"""
    marks: list[Mark] = []
    for name, card in run.cards.items():
        for check in card.get("checks", []):
            marks.append(
                ("yes" if check["passed"] else "no", f"{training.NAMES[name]}: {training.check_sentence(check)}.")
            )
    missing = [training.NAMES[name] for name in training.MODELS if name not in run.cards]
    if missing:
        marks.append(("none", f"Not trained: {', '.join(missing)}."))
    return marks


def probe_statement(run: Run) -> list[Mark]:
    """Probes"""
    return probes.statement(run)


def forecast_statement(run: Run) -> list[Mark]:
    """Forecasts"""
    return forecast.statement(run)


def distance_statement(run: Run) -> list[Mark]:
    """Distances"""
    return distances.statement(run)


def memorization_statement(run: Run) -> list[Mark]:
    """Memorization"""
    return memorization.statement(run)


STATEMENTS = (
    intake_statement,
    quality_statement,
    training_statements,
    probe_statement,
    forecast_statement,
    distance_statement,
    memorization_statement,
)
