"""Tests of braing3n.training.loop in one process: arithmetic, bookkeeping, resume, errors."""

import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from braing3n.config.training import TrainSettings
from braing3n.errors import BrainG3NError, ResumeLater
from braing3n.files import read_json


def history(out) -> pd.DataFrame:
    return pd.read_parquet(out / "history.parquet")


def losses(out, split: str = "train") -> list[float]:
    table = history(out)
    return table[(table["split"] == split) & (table["metric"] == "loss")]["value"].tolist()


def test_it_learns_and_writes_weights_card_and_history(toy, tmp_path):
    card, _ = toy.train(tmp_path)
    assert losses(tmp_path)[-1] < 0.5 * losses(tmp_path)[0]
    assert card == read_json(tmp_path / "card.json")
    assert card["checks"][0]["passed"]
    assert card["steps"] == 36  # ceil(32 / 6) = 6 steps an epoch
    assert card["epochs"] == 6
    assert {
        "metrics",
        "versions",
        "device",
        "seconds",
        "created",
        "gpu_hours",
        "cpu_hours",
        "peak_memory_bytes",
    } <= set(card)
    assert card["metrics"]["val_loss"] == min(losses(tmp_path, "val"))
    assert list(history(tmp_path).columns) == ["step", "epoch", "split", "metric", "value"]
    assert set(history(tmp_path)["metric"]) == {"loss", "absolute", "grad_norm", "learning_rate"}


def test_saved_weights_are_the_averaged_ones_of_the_best_validation(toy, tmp_path):
    card, task = toy.train(tmp_path)
    task.model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert task.validate(task.model, torch.device("cpu"))["loss"] == card["metrics"]["val_loss"]


def test_every_sample_comes_once_an_epoch_in_an_order_of_its_own(toy, tmp_path):
    _, task = toy.train(tmp_path, settings={"epochs": 2, "batch_size": 8})
    epochs = np.concatenate(task.seen).reshape(2, 32)
    assert (np.sort(epochs, axis=1) == np.arange(32)).all()
    assert not (epochs[0] == epochs[1]).all()


def test_sample_weights_set_the_frequencies(toy, tmp_path):
    task = toy.ToyTask()
    task.sample_weights = np.where(np.arange(32) < 8, 3.0, 1.0)  # the first quarter makes up half of the weight
    settings = TrainSettings(**{**toy.SETTINGS, "epochs": 60, "batch_size": 32})
    toy.fit(task, settings, tmp_path, name="toy", data_hash="", architecture={})
    share = np.mean(np.concatenate(task.seen) < 8)
    assert share == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / (60 * 32)))


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(toy, tmp_path):
    def train(name, micro):
        task = toy.ToyTask()
        task.batch = lambda indices, device, generator: (task.x[indices], task.x[indices].sum(dim=1, keepdim=True))
        task.loss = lambda model, batch, generator: ((model(batch[0]) - batch[1]).square().mean(), {})
        settings = TrainSettings(**{**toy.SETTINGS, "micro_batch_size": micro})
        toy.fit(task, settings, tmp_path / name, name="toy", data_hash="", architecture={})
        return history(tmp_path / name)

    whole, parts = train("whole", None), train("parts", 4)  # 6 = 4 + 2: unequal parts weigh by their size
    np.testing.assert_allclose(parts["value"], whole["value"], rtol=1e-4)
    grad_norms = whole[whole["metric"] == "grad_norm"]["value"]
    assert (grad_norms > 0).all()


def test_resume_equals_an_uninterrupted_run_bit_for_bit(toy, tmp_path, caplog):
    caplog.set_level("INFO", logger="braing3n")
    toy.train(tmp_path / "whole")
    # A signal in step n is obeyed after step n + 1: here in the middle of the third and of the fifth epoch.
    with pytest.raises(ResumeLater, match=r"stopped after step 15 of 36 \(SIGTERM\); run again"):
        toy.train(tmp_path / "parts", signal_at=14)
    with pytest.raises(ResumeLater, match="stopped after step 26 of 36"):
        toy.train(tmp_path / "parts", signal_at=10)
    assert not (tmp_path / "parts" / "card.json").exists()
    toy.train(tmp_path / "parts")
    pd.testing.assert_frame_equal(history(tmp_path / "parts"), history(tmp_path / "whole"), check_exact=True)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    log = (tmp_path / "parts" / "training.log").read_text()
    told = [log.index(text) for text in ("stopped after step 15 of 36 (SIGTERM)", "resuming after step 15", "step 26")]
    assert told == sorted(told), "all three runs in one log"


def test_leaves_with_a_checkpoint_before_the_end_of_the_job(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 600))
    with pytest.raises(ResumeLater, match="time limit"):
        toy.train(tmp_path, settings={"stop_before_s": 900})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000002.pt"]
    toy.train(tmp_path / "other", settings={"stop_before_s": 60})


def test_a_finished_training_is_not_repeated(toy, tmp_path):
    first, _ = toy.train(tmp_path)
    (tmp_path / "card.json").unlink()
    (tmp_path / "model.safetensors").unlink()
    again, task = toy.train(tmp_path)
    assert task.seen == []
    assert again["metrics"] == first["metrics"]
    assert again["seconds"] == first["seconds"]


def test_other_data_after_the_end_start_a_new_training(toy, tmp_path):
    toy.train(tmp_path)
    card, task = toy.train(tmp_path, data_hash="more data")
    assert card["data_hash"] == "more data"
    assert len(task.seen) == 36


def test_other_settings_are_not_mixed_into_an_unfinished_training(toy, tmp_path):
    with pytest.raises(ResumeLater):
        toy.train(tmp_path, signal_at=8)
    with pytest.raises(BrainG3NError) as caught:
        toy.train(tmp_path, settings={"learning_rate": 5e-3}, data_hash="other")
    assert "settings.learning_rate: was 0.01, now 0.005" in str(caught.value)
    assert "data_hash: was 'data', now 'other'" in str(caught.value)
    assert "delete this folder" in str(caught.value)
    toy.train(tmp_path, settings={"workers": 5, "keep_last": 3})  # these change nothing of the result


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_checkpoint(toy, tmp_path):
    with pytest.raises(BrainG3NError, match=r"diverged at step 15.*loss nan.*learning_rate"):
        toy.train(tmp_path, diverge_at=15)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*.pt"))
    assert kept == ["step-000000006.pt", "step-000000012.pt"]
    state = torch.load(tmp_path / "checkpoints" / kept[-1], weights_only=True)
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    card, _ = toy.train(tmp_path)  # goes on from there
    assert card["steps"] == 36


def test_only_the_last_checkpoints_and_the_best_weights_stay(toy, tmp_path):
    card, _ = toy.train(tmp_path, settings={"keep_last": 3})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    best = int(card["weights_from"].split()[1].rstrip(","))
    assert names == [f"best-{best:09d}.safetensors", *(f"step-{step:09d}.pt" for step in (24, 30, 36))]


def test_early_stopping_counts_epochs_without_a_lower_validation_loss(toy, tmp_path):
    task = toy.ToyTask()
    values = iter([3.0, 2.0, 2.5, 2.1, 2.2, 1.0])
    task.validate = lambda model, device: {"loss": next(values)}
    settings = TrainSettings(**{**toy.SETTINGS, "patience": 3})
    card = toy.fit(task, settings, tmp_path, name="toy", data_hash="", architecture={})
    assert card["stopped_early"]
    assert card["epochs"] == 5
    assert card["metrics"]["val_loss"] == 2.0
    assert card["weights_from"] == "step 12, lowest validation loss (averaged weights)"


def test_without_validation_the_last_weights_are_kept(toy, tmp_path):
    card, _ = toy.train(tmp_path, n_val=0, settings={"ema_decay": None})
    assert card["weights_from"] == "last step, nothing to validate on"
    assert set(history(tmp_path)["split"]) == {"train"}


def test_validation_runs_when_it_is_due_and_at_the_end(toy, tmp_path):
    toy.train(tmp_path, settings={"validate_every": 4})
    table = history(tmp_path)
    assert table[table["split"] == "val"]["epoch"].unique().tolist() == [4, 6]


def test_bfloat16_trains_float32_weights(toy, tmp_path):
    _, task = toy.train(tmp_path, settings={"precision": "bf16"})
    assert {p.dtype for p in task.model.parameters()} == {torch.float32}
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_frozen_parameters_stay(toy, tmp_path):
    task = toy.ToyTask()
    task.model[0].requires_grad_(False)
    before = task.model[0].weight.clone()
    toy.fit(task, TrainSettings(**toy.SETTINGS), tmp_path, name="toy", data_hash="", architecture={})
    assert torch.equal(task.model[0].weight, before)


def test_no_samples_is_an_error(toy, tmp_path):
    task = toy.ToyTask()
    task.n_train = 0
    with pytest.raises(BrainG3NError, match="no training samples"):
        toy.fit(task, TrainSettings(**toy.SETTINGS), tmp_path, name="toy", data_hash="", architecture={})


def test_events_are_the_history(toy, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(ResumeLater):
        toy.train(tmp_path, signal_at=14)
    toy.train(tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss/train")] == pytest.approx(losses(tmp_path), rel=1e-6)
