"""Shard tables and runs of the shard runner, for the preprocessing tests."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import pytest

# Worker processes import the tests' own steps by module name, as they do with the real ones.
sys.path.insert(0, str(Path(__file__).parent))

from shard_steps import Cohort

from braing3n.config.data import ConvertSettings
from braing3n.preprocess.convert import convert


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    return Cohort(tmp_path)


@pytest.fixture
def inline(monkeypatch) -> None:
    """Do a shard's jobs in this process: for what does not concern the worker processes, and much faster."""
    from braing3n.errors import BrainG3NError
    from braing3n.preprocess import shard
    from braing3n.preprocess.worker import Lazy, StepBroken, attempt

    def run_jobs(queue, step, context, execute, **options):
        model = Lazy(lambda: step.load(context))
        while queue:
            job = queue.popleft()
            reply = attempt(step, job, model, execute)
            if isinstance(reply, StepBroken):
                raise BrainG3NError(reply.error)
            yield job, reply

    monkeypatch.setattr(shard, "run_jobs", run_jobs)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def converted(tmp_path):
    """Convert a file written by `save`, or given; returns the converted image, the QC numbers and the parameters."""

    def run(source, out_name: str = "out.nii.gz", **options):
        if not isinstance(source, Path):
            source, path = tmp_path / "in.nii.gz", source
            nib.save(path, source)
        scratch = tmp_path / f"scratch-{out_name}"
        scratch.mkdir()
        out = tmp_path / out_name
        options = {"source_format": "nifti", "settings": ConvertSettings(), **options}
        qc, parameters = convert(source, out, scratch, **options)
        return nib.load(out), qc, parameters

    return run
