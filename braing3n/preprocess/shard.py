"""The shard runner: one preprocessing step for every volume of a shard, ending in one status table."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import braing3n
from braing3n.config import Settings
from braing3n.errors import BrainG3NError, ExcludeVolume, ResumeLater
from braing3n.files import settings_hash
from braing3n.preprocess import naming, records
from braing3n.preprocess.lock import remove_leftovers, shard_lock
from braing3n.preprocess.records import Key, Record
from braing3n.preprocess.steps import Context, Job, Step, Volume, anchor_of
from braing3n.preprocess.worker import Failure, Lazy, disk_full
from braing3n.preprocess.workers import run_jobs
from braing3n.progress import Progress
from braing3n.training.stop import StopRequest

logger = logging.getLogger(__name__)
ANCHOR_FAILED = "AnchorFailed"
STOP_BEFORE_S = 60.0  # before the scheduler's limit; then the volumes in flight are still finished


def run_shard(
    step: Step,
    *,
    shard: Path,
    root: Path,
    results: Path,
    status: Path,
    settings: Settings,
    previous: Path | None = None,
    atlas: Path | None = None,
    store: Path | None = None,
    threads: int = 1,
    timeout_s: float = 1800.0,
    max_failed_fraction: float = 0.05,
) -> None:
    """Do `step` for all volumes of `shard` and write the table `status`; volumes done before are reused.

    Args:
        shard: the shard's rows of the index.
        root: folder of the raw cohort.
        previous: status table of the step before.
        store: file into which the step packs the shard's images, for a step that does.
        threads: cores to use, shared out among worker processes.
        timeout_s: limit for one volume.
        max_failed_fraction: of the shard's volumes; one failure is always allowed.

    Raises:
        BrainG3NError: too many volumes failed (their table is then `<status>.failed.parquet`), or the step cannot run.
        ResumeLater: SIGTERM or SIGUSR1 came; what was finished is kept for the next run.
    """
    _check_arguments(step, previous, atlas, store)
    volumes = records.read_volumes(shard, previous)
    cohort, name = volumes[0].row["cohort"], volumes[0].row["shard"]
    n_workers, threads_each = step.workers(threads, settings)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{socket.gethostname()}-{os.getpid()}"
    context = Context(cohort, name, root, results, settings, atlas, threads_each, run_id)
    failed_status = status.with_suffix(".failed.parquet")
    outputs = [status, failed_status] + ([store, store.with_suffix(".parquet")] if store else [])
    with (
        full_disk_is_an_error(results),
        shard_lock(results / "work" / "lock" / cohort / f"{name}.lock"),
        StopRequest(STOP_BEFORE_S) as stop,
    ):
        description = results / "derivatives" / cohort / "dataset_description.json"
        remove_leftovers(_places(step, volumes, context, [*outputs, description]))
        for path in outputs:
            path.unlink(missing_ok=True)  # they exist only when this run has ended well
        naming.write_dataset_description(results, cohort)
        rows = _process(step, volumes, context, n_workers, timeout_s, stop)
        if len(rows) < len(volumes):
            raise ResumeLater(_interrupted(step, stop, len(rows), len(volumes)))
        ordered = [rows[volume.id] for volume in volumes]
        _check_failures(volumes, ordered, max_failed_fraction, failed_status)
        if step.pack is not None:
            _pack(step, ordered, results, store, stop)
        records.write_status(status, ordered)


def _check_arguments(step: Step, previous: Path | None, atlas: Path | None, store: Path | None) -> None:
    options = {
        "--previous": (previous, step.reads_previous),
        "--atlas": (atlas, step.uses_atlas),
        "--store": (store, step.pack is not None),
    }
    for option, (value, needed) in options.items():
        if (value is not None) != needed:
            raise BrainG3NError(f"{step.name}: {option} is {'needed' if needed else 'not used'}")
    if step.uses_atlas:
        from braing3n.preprocess.atlas import load_atlas

        load_atlas(atlas)  # without it, every volume would fail


@contextlib.contextmanager
def full_disk_is_an_error(results: Path) -> Iterator[None]:
    """Turn the operating system's word for a full disk into one line for the user."""
    try:
        yield
    except OSError as error:
        if not disk_full(error, results):
            raise
        raise BrainG3NError("no space left on the disk", file=results, remedy="free some and run it again") from error


def execute(step: Step, job: Job, model: Lazy) -> Record:
    """One volume, in a worker: reuse what an earlier run made, else run the step and write the volume's record."""
    context, volume, start = job.context, job.volume, time.monotonic()
    inputs = {**step.inputs(job), "name": f"{naming.folder(volume.row)}/{naming.entities(volume.row)}"}
    key = _key(context.settings, records.hash_inputs(inputs))
    path = records.record_path(context, step.name, volume)
    if (found := records.read_reusable(path, key, context.results)) is not None:
        return found
    product = step.run(job, model)
    outputs = {name: str(relative) for name, relative in product.outputs.items()}
    record = Record(
        key=key,
        status="skipped" if product.skipped else "ok",
        reason=product.skipped,
        outputs=outputs,
        files=records.describe_files(context.results, outputs),
        qc={name: round(float(value), 6) for name, value in product.qc.items()},
        versions=_versions(tuple(step.tools)),
        seconds=round(time.monotonic() - start, 3),
        run_id=context.run_id,
        finished_at=records.now(),
    )
    records.write_record(path, record)
    return record


def _key(settings: Settings, input_sha256: str = "") -> Key:
    return Key(input_sha256, settings_hash(settings), str(settings.version))


@cache
def _versions(tools: tuple[str, ...]) -> dict[str, str]:
    return {"braing3n": braing3n.__version__} | {tool: version(tool) for tool in tools}


def _places(step: Step, volumes: list[Volume], context: Context, outputs: list[Path]) -> Iterator[Path]:
    """Everything that lies where this shard's runs write."""
    folders = {context.output(naming.folder(volume.row)) for volume in volumes}
    folders.add(records.work_folder(context.results, step.name, context.cohort, context.shard))
    for folder in folders:
        if folder.is_dir():
            yield from folder.iterdir()
    for path in outputs:  # their folders are shared with other shards
        if path.parent.is_dir():
            yield from path.parent.glob(f".tmp*-{path.name}")


@dataclass
class _Plan:
    """Rows that need no work, jobs that do, and volumes that wait for their session's anchor."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    queue: deque[Job] = field(default_factory=deque)
    waiting: dict[str, list[Volume]] = field(default_factory=lambda: defaultdict(list))


def _plan(step: Step, volumes: list[Volume], context: Context) -> _Plan:
    plan = _Plan()
    sessions: dict[tuple[str, str], list[Volume]] = defaultdict(list)
    for volume in volumes:
        sessions[volume.row["subject_id"], volume.row["session_id"]].append(volume)
    for session in sessions.values():
        first = anchor_of(session)
        for volume in session:
            anchor = None if volume is first else first
            if volume.lost:
                plan.rows[volume.id] = records.carried_row(volume, context.run_id)
            elif step.by_session and anchor is not None and anchor.lost:
                plan.rows[volume.id] = _without_anchor(step, volume, anchor, context)
            else:
                _decide(step, volume, anchor, context, plan)
    return plan


def _decide(step: Step, volume: Volume, anchor: Volume | None, context: Context, plan: _Plan) -> None:
    try:
        reason = step.skip(volume, anchor, context.settings)
    except ExcludeVolume as decision:
        failure = Failure("excluded", "ExcludeVolume", str(decision), 0.0)
        plan.rows[volume.id] = _failed_row(step, volume, failure, context)
        return
    if reason:
        record = Record(_key(context.settings), "skipped", reason, run_id=context.run_id, finished_at=records.now())
        plan.rows[volume.id] = records.status_row(volume, record, step.name)
    elif step.after_anchor and anchor is not None:
        plan.waiting[anchor.id].append(volume)
    else:
        plan.queue.append(Job(volume, anchor, context))


def _process(
    step: Step, volumes: list[Volume], context: Context, n_workers: int, timeout_s: float, stop: StopRequest
) -> dict[str, dict[str, Any]]:
    """Status rows by volume id; fewer than volumes if a stop was requested."""
    plan = _plan(step, volumes, context)
    for anchor_id in [key for key in plan.waiting if key in plan.rows]:  # anchors that need no work
        _release(step, plan, next(v for v in volumes if v.id == anchor_id), context)
    progress = Progress(f"{step.name} {context.cohort}/{context.shard}", len(volumes), len(plan.rows))
    jobs = run_jobs(
        plan.queue, step, context, execute, n_workers=n_workers, timeout_s=timeout_s, stopping=stop.requested
    )
    with progress:
        for job, result in jobs:
            if isinstance(result, Failure):
                row = _failed_row(step, job.volume, result, context)
                logger.warning("%s %s at %s: %s", job.volume, result.status, step.name, result.reason)
            else:
                row = records.status_row(job.volume, result, step.name, reused=result.run_id != context.run_id)
            plan.rows[job.volume.id] = row
            _release(step, plan, job.volume, context)
            progress.update(len(plan.rows))
    return plan.rows


def _release(step: Step, plan: _Plan, anchor: Volume, context: Context) -> None:
    """Queue the volumes that waited for `anchor`, or fail them with it."""
    done = records.volume_after(anchor.row, plan.rows[anchor.id])
    for volume in plan.waiting.pop(anchor.id, []):
        if done.lost:
            plan.rows[volume.id] = _without_anchor(step, volume, done, context)
        else:
            plan.queue.append(Job(volume, done, context))


def _without_anchor(step: Step, volume: Volume, anchor: Volume, context: Context) -> dict[str, Any]:
    fate = "failed" if anchor.status == "failed" else "was excluded"
    reason = f"its session's {anchor} {fate} at {anchor.failed_step}: {anchor.reason}"
    error_class = ANCHOR_FAILED if anchor.status == "failed" else "ExcludeVolume"
    return _failed_row(step, volume, Failure(anchor.status, error_class, reason, 0.0), context)


def _failed_row(step: Step, volume: Volume, failure: Failure, context: Context) -> dict[str, Any]:
    record = Record(
        _key(context.settings),
        failure.status,
        failure.reason,
        failure.error_class,
        seconds=round(failure.seconds, 3),
        run_id=context.run_id,
        finished_at=records.now(),
    )
    return records.status_row(volume, record, step.name)


def _check_failures(volumes: list[Volume], rows: list[dict[str, Any]], allowed: float, table: Path) -> None:
    """Volumes that only follow a failed anchor are not counted: one bad scan is one failure."""
    failed = [
        (volume, row)
        for volume, row in zip(volumes, rows, strict=True)
        if row["status"] == "failed" and row["error_class"] != ANCHOR_FAILED
    ]
    if len(failed) <= max(1.0, allowed * len(rows)):
        return
    records.write_status(table, rows)
    named = "; ".join(f"{volume} at {row['failed_step']}: {row['reason']}" for volume, row in failed[:5])
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    raise BrainG3NError(
        f"{len(failed)} of {len(rows)} volumes failed",
        file=table,
        expected=f"at most a fraction of {allowed:g} (max_failed_fraction), or one",
        found=named + more,
        remedy="repair or remove those files, or raise max_failed_fraction; a rerun keeps what is finished",
    )


def _pack(step: Step, rows: list[dict[str, Any]], results: Path, store: Path, stop: StopRequest) -> None:
    kept = [row for row in rows if row["status"] in ("ok", "skipped")]

    def images() -> Iterator[Path]:
        for row in kept:
            if stop.requested():
                raise ResumeLater(_interrupted(step, stop, len(rows), len(rows)) + ", the store is not packed yet")
            yield results / row["outputs"]["image"]

    step.pack(store, [row["volume_id"] for row in kept], images())


def _interrupted(step: Step, stop: StopRequest, done: int, total: int) -> str:
    return f"{step.name} stopped ({stop.reason}) with {done} of {total} volumes done; run it again to continue"
