"""Tests of the loop's helpers: optimizer, schedule, averages, seeds, prefetch, processes, checkpoints."""

import math
import threading
import time

import pytest
import torch
from torch import nn

from braing3n.config.training import TrainSettings
from braing3n.errors import BrainG3NError
from braing3n.training import seeds
from braing3n.training.checkpoint import Checkpoints, differences
from braing3n.training.distributed import mean_over_processes, pick_device, share
from braing3n.training.optimizer import learning_rate, make_ema, make_optimizer
from braing3n.training.prefetch import prefetched


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"epochs": 1, "batch_size": 1, "learning_rate": 2.0, "warmup_fraction": 0.1, **changes})


def test_learning_rate_warms_up_then_follows_a_cosine_step_by_step():
    rates = [learning_rate(settings(final_lr_fraction=0.1), step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (k + 1) for k in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way through the cosine
    assert rates[99] == pytest.approx(2.0 * (0.1 + 0.45 * (1 + math.cos(math.pi * 89 / 90))))
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_constant_rate_after_warm_up_and_none_at_all():
    assert learning_rate(settings(schedule="constant"), 99, 100) == 2.0
    assert learning_rate(settings(warmup_fraction=0.0), 0, 100) == 2.0


def test_only_matrices_are_decayed():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    groups = make_optimizer(model, settings(weight_decay=0.3)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.3), (3, 0.0)]


def test_averages_follow_the_closed_form():
    model = nn.Linear(1, 1, bias=False)
    ema = make_ema(model, 0.9)
    expected = None
    for n, value in enumerate([1.0, 2.0, 5.0, -3.0, 0.5, 4.0]):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = value if n == 0 else decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_derived_seeds_differ_by_every_key_and_repeat():
    values = {seeds.derive(seed, purpose, step) for seed in range(3) for purpose in range(3) for step in range(50)}
    assert len(values) == 450
    draws = [torch.rand(3, generator=seeds.generator("cpu", 2025, 1, 7)) for _ in range(2)]
    assert torch.equal(*draws)


def test_seeded_construction_leaves_the_global_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeds.seeded(0):
        first = nn.Linear(2, 2).weight
    assert torch.equal(torch.rand(2), expected)
    with seeds.seeded(0):
        assert torch.equal(nn.Linear(2, 2).weight, first)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_prefetched_keeps_the_order_and_stays_ahead_by_no_more_than_its_threads(threads):
    made = []

    def make(item):
        time.sleep(0.002 * (item % 3))
        made.append(item)
        return item * item

    for used, result in enumerate(prefetched(make, range(20), threads)):
        assert result == used * used
        assert len(made) <= used + 1 + threads
    assert sorted(made) == list(range(20))


def test_prefetched_raises_where_the_item_is_used_and_ends_its_threads():
    def make(item):
        if item == 2:
            raise ValueError("item 2")
        return item

    results = prefetched(make, range(9), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_one_process_shares_nothing():
    assert share([1, 2, 3]) == [1, 2, 3]
    assert mean_over_processes({"loss": 6.0, "other": 3.0}, 4) == {"loss": 1.5, "other": 0.75}


def test_device_is_what_is_there():
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(BrainG3NError, match="no GPU"):
            pick_device("cuda")


def test_differences_name_the_leaves():
    saved, now = {"a": {"b": 1, "c": [1, 2]}, "d": 0}, {"a": {"b": 2, "c": [1, 2]}, "e": None, "d": 0}
    assert differences(saved, now) == ["a.b: was 1, now 2"]
    assert differences({"a": 1}, {"a": 1}) == []


def test_a_broken_checkpoint_is_named(tmp_path):
    (tmp_path / "step-000000003.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(BrainG3NError, match=r"step-000000003\.pt: checkpoint cannot be read"):
        Checkpoints(tmp_path, 2, {}).load()
