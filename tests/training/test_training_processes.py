"""Tests of braing3n.training.loop across processes: killed, and run as two."""

import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file


def read(out) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    return pd.read_parquet(out / "history.parquet"), load_file(out / "model.safetensors")


def wait_for_checkpoints(process, out, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(list((out / "checkpoints").glob("step-*.pt"))) < number:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(toy, start_toy, tmp_path):
    process = start_toy(tmp_path / "killed", pause=0.03)
    wait_for_checkpoints(process, tmp_path / "killed", 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "card.json").exists()
    _, task = toy.train(tmp_path / "killed")
    assert 0 < len(task.seen) <= 24  # two of six epochs were kept
    toy.train(tmp_path / "whole")
    (killed, killed_weights), (whole, whole_weights) = read(tmp_path / "killed"), read(tmp_path / "whole")
    pd.testing.assert_frame_equal(killed, whole, check_exact=True)
    assert all(torch.equal(killed_weights[key], whole_weights[key]) for key in whole_weights)


def test_two_processes_equal_one_with_the_same_global_batch(toy, start_toy, tmp_path):
    process = start_toy(tmp_path / "two", processes=2)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    toy.train(tmp_path / "one", settings={"micro_batch_size": 3})
    (two, two_weights), (one, one_weights) = read(tmp_path / "two"), read(tmp_path / "one")
    assert two["metric"].tolist() == one["metric"].tolist()
    np.testing.assert_allclose(two["value"], one["value"], rtol=1e-4)
    for key in one_weights:
        torch.testing.assert_close(two_weights[key], one_weights[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_torchrun_stops_every_process_after_a_checkpoint(toy, start_toy, tmp_path, number):
    process = start_toy(tmp_path, processes=2, pause=0.1)
    wait_for_checkpoints(process, tmp_path, 1)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert f"({number.name})" in stderr
    step = max(int(path.stem.removeprefix("step-")) for path in (tmp_path / "checkpoints").glob("step-*"))
    assert 6 < step < 36
    _, task = toy.train(tmp_path)
    assert len(task.seen) == 36 - step


def test_four_processes_stopped_and_resumed_equal_four_uninterrupted_bit_for_bit(start_toy, tmp_path):
    """Sums of more than two numbers depend on their order, and so on how gradients lie in the exchanged buckets."""
    settings = {"batch_size": 8}
    for name, pause in (("parts", 0.1), ("parts", 0), ("whole", 0)):
        process = start_toy(tmp_path / name, processes=4, pause=pause, settings=settings)
        if pause:
            wait_for_checkpoints(process, tmp_path / name, 1)
            process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=120)
        assert (process.returncode == 0) == (not pause), stderr
    (parts, parts_weights), (whole, whole_weights) = read(tmp_path / "parts"), read(tmp_path / "whole")
    pd.testing.assert_frame_equal(parts, whole, check_exact=True)
    assert all(torch.equal(parts_weights[key], whole_weights[key]) for key in whole_weights)
