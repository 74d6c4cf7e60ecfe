"""`braing3n status`: counts add up, shards in flight are seen, and the text fits a terminal."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from braing3n.cli.main import app
from braing3n.errors import BrainG3NError
from braing3n.files import write_json, write_parquet
from braing3n.reporting.status import read_status, render


def state_of(results, cohort, step):
    return next(row for row in read_status(results).steps if (row.cohort, row.step) == (cohort, step))


def test_counts_follow_the_status_tables_and_add_up(whole_results):
    for row in read_status(whole_results).steps:
        assert row.done + row.excluded + row.failed + row.earlier + row.pending == row.volumes
    n4 = state_of(whole_results, "IXI", "n4")
    assert (n4.done, n4.failed, n4.earlier, n4.pending, n4.shards_done) == (6, 1, 0, 0, 1)
    assert state_of(whole_results, "IXI", "crop").earlier == 1


def test_encoding_counts_the_volumes_with_latents(results):
    latents = results / "latents/IXI/0000.parquet"
    write_parquet(results / "volumes/IXI/0000.parquet", pd.DataFrame({"volume_id": list("abcdef")}))
    latents.unlink(missing_ok=True)
    before = state_of(results, "IXI", "encode")
    assert (before.done, before.earlier, before.pending, before.shards_done) == (0, 1, 6, 0)
    write_parquet(latents, pd.DataFrame({"volume_id": list("abcdef")}))
    after = state_of(results, "IXI", "encode")
    assert (after.done, after.earlier, after.pending, after.shards_done) == (6, 1, 0, 1)


def test_error_classes_carry_their_last_reason(whole_results):
    (error,) = read_status(whole_results).errors
    assert (error.step, error.error_class, error.count) == ("n4", "BrainG3NError", 1)
    assert error.last_reason.startswith("2,311")


def test_a_shard_in_flight_counts_its_records(results):
    (results / "status/crop/IXI/0000.parquet").unlink()
    for number in range(2):
        write_json(results / f"work/crop/IXI/0000/{number:016x}.json", {"status": "ok"})
    (results / "work/crop/IXI/0000/.tmp7-x.json").write_text("{")
    crop = state_of(results, "IXI", "crop")
    assert (crop.done, crop.earlier, crop.pending, crop.shards_done) == (2, 1, 4, 0)


def test_a_shard_stopped_by_too_many_failures_is_marked(results):
    folder = results / "status/n4/IXI"
    (folder / "0000.parquet").rename(folder / "0000.failed.parquet")
    row = state_of(results, "IXI", "n4")
    assert (row.shards_failed, row.shards_done, row.failed) == (1, 0, 1)
    assert "0/1!" in render(read_status(results))


def checkpoint(folder, step, finished=False):
    history = [
        {"step": step, "epoch": 2, "split": split, "metric": "loss", "value": value}
        for split, value in (("train", 0.5), ("val", 0.75))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "identity": {"settings": {"epochs": 10}},
        "progress": {"history": history, "seconds": 60.0, "finished": finished},
        "model": {"weight": torch.zeros(4)},
    }
    torch.save(content, folder / f"step-{step:09d}.pt")


def test_training_progress_and_time_left_come_from_the_newest_checkpoint(results):
    (results / "models/dit/card.json").unlink()
    checkpoint(results / "models/dit/checkpoints", 10)
    checkpoint(results / "models/dit/checkpoints", 20)
    dit = next(model for model in read_status(results).models if model.name == "dit")
    assert (dit.state, dit.step, dit.total_steps, dit.epoch, dit.epochs) == ("in progress", 20, 100, 2, 10)
    assert (dit.train_loss, dit.val_loss) == (0.5, 0.75)
    assert dit.eta_s == pytest.approx(60 / 20 * 80)


def test_a_checkpoint_that_vanishes_or_breaks_does_not_stop_the_status(results):
    (results / "models/dit/card.json").unlink()
    (results / "models/dit/checkpoints").mkdir()
    (results / "models/dit/checkpoints/step-000000030.pt").write_bytes(b"half")
    dit = next(model for model in read_status(results).models if model.name == "dit")
    assert (dit.state, dit.step, dit.eta_s) == ("in progress", 30, None)


def test_text_fits_80_columns_even_with_long_names_and_reasons(results):
    shards = {"version": 1, "cohorts": {"A-COHORT-WITH-A-LONG-NAME": {"n_shards": 1000, "shards": {"0000": 1234567}}}}
    write_json(results / "index/shards.json", shards)
    table = pd.read_parquet(results / "status/n4/IXI/0000.parquet")
    write_parquet(results / "status/n4/A-COHORT-WITH-A-LONG-NAME/0000.parquet", table.assign(reason="word " * 100))
    text = render(read_status(results))
    assert max(map(len, text.splitlines())) <= 80


def test_json_is_machine_readable_and_filters_apply(whole_results):
    command = ["status", "--results", str(whole_results), "--cohort", "IXI", "--step", "n4", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert [(row["cohort"], row["step"]) for row in json.loads(result.stdout)["steps"]] == [("IXI", "n4")]


def test_no_index_and_unknown_names_are_said(tmp_path, whole_results):
    with pytest.raises(BrainG3NError, match="braing3n index"):
        read_status(tmp_path)
    with pytest.raises(BrainG3NError, match="expected: ADNI, IXI"):
        read_status(whole_results, cohort="OASIS")
