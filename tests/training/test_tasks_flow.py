"""Flow matching tasks on latents with known moments, and the pairs that the longitudinal one is made of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from braing3n.config.models import CategoricalCondition, ConditionVocabulary, ContinuousCondition, DiTArchitecture
from braing3n.config.training import ConditionDropout, TimeSettings, TrainSettings
from braing3n.flow.interpolants import bridge
from braing3n.models.conditions import requested_conditions
from braing3n.models.dit import DiT
from braing3n.training.dit_task import noise_to_data
from braing3n.training.flow_task import FlowSamples, FlowTask, loss_fell
from braing3n.training.longitudinal_task import find_pairs
from braing3n.training.loop import fit
from braing3n.training.seeds import generator, seeded

CPU = torch.device("cpu")
VOCABULARY = ConditionVocabulary(
    categorical={"sex": CategoricalCondition(column="sex", classes=("F", "M"))},
    continuous={"age": ContinuousCondition(column="age_at_scan")},
)
MEAN, STD = 2.0, 0.5


def latents(n: int, seed: int) -> torch.Tensor:
    """(n, 8, 4): N(MEAN, STD^2), MEAN positive for one sex (even samples) and negative for the other."""
    sign = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)[:, None, None]
    return MEAN * sign + STD * torch.randn(n, 8, 4, generator=generator("cpu", seed))


def samples(*ends: torch.Tensor) -> FlowSamples:
    requests = [{"sex": "FM"[i % 2], "age": 50} for i in range(len(ends[0]))]
    return FlowSamples(
        lambda indices, device: tuple(end[torch.as_tensor(indices)] for end in ends),
        requested_conditions(requests, VOCABULARY),
    )


def task(train: FlowSamples, val: FlowSamples, path=noise_to_data, dropout=0.1, **more) -> FlowTask:
    with seeded(0):
        model = DiT(DiTArchitecture(hidden=24, depth=1, heads=2, mlp_ratio=2, latent=4), VOCABULARY, (), (2, 2, 2))
    return FlowTask(
        model,
        path,
        train,
        val,
        time=TimeSettings(),
        dropout=ConditionDropout(independent=dropout),
        batch_size=32,
        seed=0,
        **more,
    )


def settings(**changes) -> TrainSettings:
    given = {
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "precision": "fp32",
        "device": "cpu",
        "stop_before_s": 0,
        "ema_decay": 0.9,
    }
    return TrainSettings(**(given | changes))


def train(flow_task: FlowTask, out, **changes):
    return fit(flow_task, settings(**changes), out, name="dit", data_hash="data", architecture={})


@torch.no_grad()
def checks(flow_task: FlowTask) -> list[dict]:
    """Checks of the untrained model."""
    return flow_task.checks([{"split": "train", "metric": "loss", "value": 1.0}], flow_task.model.eval(), CPU)


def test_mean_velocity_is_minus_the_mean_latent():
    x = latents(100, 0) + 1.0
    torch.testing.assert_close(task(samples(x), samples(x[:0])).mean_velocity(CPU), -x.mean(dim=0))


def test_constant_baseline_is_the_variance_of_the_target():
    """Best constant: noise variance 1, plus the data's around its mean, MEAN^2 + STD^2 with signs balanced."""
    t = task(samples(latents(2000, 0)), samples(latents(512, 1)))
    check = checks(t)[0]
    assert check["name"] == "velocity error below that of the mean velocity"
    assert check["baseline"] == pytest.approx(1 + MEAN**2 + STD**2, rel=0.05)
    assert check["value"] == pytest.approx(check["baseline"], rel=0.05)  # untrained: velocity 0 is the mean velocity


def test_training_beats_the_constant_and_records_null_frequencies(tmp_path):
    card = train(task(samples(latents(256, 0)), samples(latents(64, 1))), tmp_path, epochs=12)
    assert [check["passed"] for check in card["checks"]] == [True, True]
    history = pd.read_parquet(tmp_path / "history.parquet").query("split == 'train'").groupby("metric")["value"].mean()
    assert history["null_sex"] == pytest.approx(0.1, abs=0.03)
    assert history["null_age"] == pytest.approx(0.1, abs=0.03)
    assert history["null_all"] < 0.03


def test_conditions_are_learned(tmp_path):
    """The two sexes' latents differ in sign: asked for one, the flow ends there."""
    from braing3n.config.training import SamplerSettings
    from braing3n.evaluation.sampling import LatentFlow

    flow_task = task(samples(latents(256, 0)), samples(latents(64, 1)))
    train(flow_task, tmp_path, epochs=30)
    off = torch.autocast("cpu", enabled=False)
    flow = LatentFlow(flow_task.model.eval(), None, "linear", 1.0, off, off)
    noise = torch.randn(32, 8, 4, generator=generator("cpu", 5))
    means = [
        float(
            flow.sample(
                noise, requested_conditions([{"sex": sex, "age": 50}] * 32, VOCABULARY), SamplerSettings(steps=10)
            ).mean()
        )
        for sex in "FM"
    ]
    assert means[0] > 0.5
    assert means[1] < -0.5


def test_validation_is_the_same_every_time_and_drops_nothing():
    t = task(samples(latents(64, 0)), samples(latents(5, 1)), dropout=1.0)
    assert t.validate(t.model, CPU) == t.validate(t.model, CPU)
    assert sum(len(indices) for _, indices in t.draws(t.val)) == 65  # 13 times each of 5: at least 64


def test_no_validation_samples_no_validation():
    t = task(samples(latents(8, 0)), samples(latents(0, 0)))
    assert t.validate(t.model, CPU) == {}


def test_bridge_check_has_the_copied_baseline():
    x = latents(64, 0)
    t = task(
        samples(x, x + 0.3),
        samples(x, x + 0.3),
        path=lambda ends, noise, t: bridge(*ends, noise, t, 0.5),
        constants={"copied baseline": 0.0},
    )
    mean, copied, _ = checks(t)
    assert mean["baseline"] == pytest.approx(0, abs=1e-9)
    assert copied["baseline"] == pytest.approx(0.09, rel=1e-3)
    assert not mean["passed"]


def test_loss_fell_looks_at_the_last_tenth():
    history = [{"split": "train", "metric": "loss", "value": v} for v in [2.0] + [1.0] * 8 + [3.0]]
    assert loss_fell(history)["value"] == 3.0
    assert not loss_fell(history)["passed"]


def scan(person, volume, *, date=None, age=None, cohort="ADNI", modality="T1", binned=False, split="train"):
    return {
        "volume_id": volume,
        "cohort": cohort,
        "person_id": person,
        "modality": modality,
        "session_date": date,
        "age_at_scan": age,
        "age_is_binned": binned,
        "split": split,
    }


def pairs_of(*scans) -> list[tuple[str, str, float]]:
    found = find_pairs(pd.DataFrame(scans), ("ADNI",))
    return [(row.baseline, row.follow_up, round(row.horizon, 3)) for row in found.itertuples()]


def test_pairs_are_ordered_in_time_by_date():
    assert pairs_of(
        scan("p", "late", date="2012-06-30", age=70.0),
        scan("p", "first", date="2010-06-30", age=70.0),
        scan("p", "second", date="2011-06-30", age=70.0),
    ) == [("first", "late", 2.001), ("first", "second", 0.999), ("second", "late", 1.002)]


def test_ages_where_a_date_is_missing():
    assert pairs_of(scan("p", "a", date="2010-01-01", age=60.0), scan("p", "b", age=61.5)) == [("a", "b", 1.5)]


@pytest.mark.parametrize(
    "scans",
    [
        (scan("p", "a", age=60.0), scan("q", "b", age=62.0)),  # two persons
        (scan("p", "a", age=60.0), scan("p", "b", age=60.0)),  # nothing tells which came first
        (scan("p", "a", age=60.0), scan("p", "b", age=62.0, modality="T2")),
        (scan("p", "a", age=60.0), scan("p", "b", age=62.0, cohort="PPMI")),
        (scan("p", "a", age=60.0, binned=True), scan("p", "b", age=62.0, binned=True)),
        (scan("p", "a"), scan("p", "b", age=62.0)),
        (),
    ],
)
def test_what_is_no_pair(scans):
    table = pd.DataFrame(scans, columns=list(scan("p", "a")))
    found = find_pairs(table, ("ADNI",))
    assert found.empty
    assert {"baseline", "follow_up", "horizon", "split"} <= set(found.columns)


def test_conditions_of_a_pair_are_the_baselines():
    found = find_pairs(pd.DataFrame([scan("p", "b", age=62.0), scan("p", "a", age=60.0)]), ("ADNI",))
    assert found[["baseline", "age_at_scan", "horizon"]].to_numpy().tolist() == [["a", 60.0, 2.0]]


def test_pairs_keep_to_one_split():
    found = find_pairs(
        pd.DataFrame(
            [scan(p, f"{p}{v}", age=60.0 + v, split=s) for p, s in (("p", "train"), ("q", "val")) for v in range(3)]
        ),
        ("ADNI",),
    )
    assert found.groupby("split").size().to_dict() == {"train": 3, "val": 3}
    assert np.all(found["baseline"].str[0] == found["follow_up"].str[0])
