"""The audit finds copies that were planted, and none where there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from braing3n.config.models import TokenizerArchitecture
from braing3n.config.training import MemorizationSettings
from braing3n.errors import BrainG3NError
from braing3n.evaluation.memorization import Latents, copy_ratio, nearest, nearest_neighbour_test, run_memorization
from braing3n.files import sha256_of, write_parquet
from braing3n.models.tokenizer import Tokenizer, tokenizer_card_architecture
from braing3n.models.weights import WEIGHTS, save_model
from braing3n.training.seeds import seeded
from braing3n.volumes.latents import write_latents

PERSONS, SCANS = 40, 2
SETTINGS = MemorizationSettings(permutations=200, neighbours=3)


def latents(values: np.ndarray, persons=None) -> Latents:
    ids = np.array([f"{i}" for i in range(len(values))], dtype=object)
    persons = ids if persons is None else np.asarray(persons)
    return Latents(torch.from_numpy(np.asarray(values)).half(), ids, persons)


def test_neighbours_are_exact_and_never_of_the_same_person():
    random = np.random.default_rng(0)
    pool = latents(random.normal(size=(30, 8)), np.repeat(np.arange(15), 2))
    distances, positions = nearest(pool, pool, 3)
    values = pool.values.float().numpy()
    full = np.linalg.norm(values[:, None] - values[None], axis=2)
    full[pool.persons[:, None] == pool.persons[None]] = np.inf
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :3], rtol=1e-5)
    np.testing.assert_array_equal(positions[:, 0], full.argmin(1))


def test_small_distances_keep_their_digits():
    """Vectors of length about 200 that differ by 0.01: a matrix product alone would lose the difference."""
    base = np.random.default_rng(0).normal(size=(1, 38_400))
    pool = latents(np.concatenate([base, base + 5]))
    near = Latents(pool.values[:1].clone(), np.array(["q"], dtype=object), np.array(["q"], dtype=object))
    near.values[0, 0] += 0.01
    moved = float((near.values[0, 0] - pool.values[0, 0]).float())
    assert nearest(near, pool, 1)[0][0, 0] == pytest.approx(abs(moved), rel=1e-5)


def test_blocks_do_not_change_the_result(monkeypatch):
    random = np.random.default_rng(1)
    queries, pool = (
        latents(random.normal(size=(11, 5))),
        latents(random.normal(size=(23, 5)), [f"p{i}" for i in range(23)]),
    )
    whole = nearest(queries, pool, 4)
    monkeypatch.setattr("braing3n.evaluation.memorization.BLOCK", 4)
    for a, b in zip(whole, nearest(queries, pool, 4), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_too_few_others_are_said_so():
    distances, positions = nearest(latents(np.eye(2), ["a", "b"]), latents(np.eye(2), ["a", "a"]), 2)
    assert np.isinf(distances[0]).all()
    assert (positions[0] == -1).all()
    assert np.isfinite(distances[1]).all()


def test_copy_ratio_is_low_for_copies_only():
    ratio = copy_ratio(np.array([[1.0, 10, 10], [9.0, 10, 11], [3.0, np.inf, np.inf]]))
    np.testing.assert_allclose(ratio, [0.1, 9 / 10.5, np.nan])


def test_two_sample_test_has_its_level_and_power():
    random = np.random.default_rng(0)
    labels = np.repeat([True, False], 30)

    def p_value(shift: float) -> tuple[float, float]:
        both = latents(random.normal(size=(60, 4)) + shift * labels[:, None])
        return nearest_neighbour_test(nearest(both, both, 1)[1][:, 0], labels, 100, random)

    null = np.array([p_value(0.0)[1] for _ in range(60)])
    assert (null < 0.05).mean() <= 0.13  # binomial 60 x 0.05 exceeds this once in 200
    accuracy, p = p_value(2.0)
    assert accuracy > 0.8
    assert p < 0.02


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """80 scans of 40 persons in a 10 x 12 x 10 grid of 4 channels, and two arms: fresh draws, and noisy copies."""
    results = tmp_path_factory.mktemp("memorization")
    with seeded(0):
        model = Tokenizer(TokenizerArchitecture(latent=4, widths=(4, 4, 4, 4, 4), attention_heads=1, groups=1), 8)
    save_model(model, {"architecture": tokenizer_card_architecture(model)}, results / "models/tokenizer")
    made_by = sha256_of(results / "models/tokenizer" / WEIGHTS)
    draw = torch.Generator().manual_seed(0)
    person = torch.randn(PERSONS, 1200, 4, generator=draw).repeat_interleave(SCANS, 0)
    scans = person + 0.1 * torch.randn(person.shape, generator=draw)
    ids = [f"{i:016x}" for i in range(len(scans))]
    write_latents(results / "latents/IXI/0000.safetensors", ids, scans, made_by)
    persons = np.repeat([f"IXI:{i}" for i in range(PERSONS)], SCANS)
    metadata = pd.DataFrame(
        {"volume_id": ids, "person_id": persons, "cohort": "IXI", "shard": "0000", "split": "train"}
    )
    metadata.loc[metadata.index >= 70, "split"] = "test"
    fresh = torch.randn(6, 1200, 4, generator=draw)
    copies = scans[:6] + 0.02 * torch.randn(6, 1200, 4, generator=draw)
    for arm, values in (("fresh", fresh), ("copies", copies)):
        write_latents(results / f"generated/{arm}.safetensors", [f"{arm}{i}" for i in range(6)], values, made_by)
    tokenizer = results / "models/tokenizer"
    return run_memorization(metadata, results, results / "generated", tokenizer, SETTINGS), metadata, results


def test_planted_copies_are_named_with_their_sources(study):
    (_, pairs), metadata, _ = study
    first = pairs[pairs["rank"] == 1].set_index("volume_id")
    copies = first[first["arm"] == "copies"]
    assert copies["neighbour"].tolist() == metadata["volume_id"][:6].tolist()
    assert copies["under_p5"].all()
    assert copies["copy_ratio"].max() < 0.5
    fresh = first[first["arm"] == "fresh"]
    assert fresh["copy_ratio"].min() > 0.9


def test_summary_tells_the_arms_apart(study):
    (table, _), _, _ = study
    value = table.set_index(["task", "metric"])["value"]
    assert value["training vs training", "fraction_under_p5"] == pytest.approx(0.05, abs=0.03)
    assert value["generated vs training", "fraction_under_p5"] == pytest.approx(0.5, abs=0.1)
    assert value["generated vs training", "min"] == pytest.approx(0.02 * np.sqrt(4800), rel=0.1)
    assert value["generated vs training", "ratio_to_training"] < 1
    # Two persons' independent draws of 4800 values lie sqrt(2 x 4800 x 1.01) apart, on average over nearest ones less.
    assert value["training vs training", "median"] == pytest.approx(np.sqrt(2 * 4800 * 1.01), rel=0.05)
    assert table[table["task"] == "held-out vs training"]["n_scans"].iloc[0] == 10


def test_positive_control_is_detected(study):
    (table, _), _, _ = study
    value = table.set_index(["task", "metric"])["value"]
    assert value["positive control, noise 0.01", "fraction_under_p5"] == 1
    assert value["positive control, noise 0.01", "found_source"] == 1
    assert value["positive control, noise 0.01", "copy_ratio_max"] < 0.5


def test_audit_without_generated_latents_is_refused(study, tmp_path):
    _, metadata, results = study
    write_parquet(tmp_path / "other.parquet", pd.DataFrame({"volume_id": ["a"]}))
    with pytest.raises(BrainG3NError, match="holds no generated latents"):
        run_memorization(metadata, results, tmp_path, results / "models/tokenizer", SETTINGS)
