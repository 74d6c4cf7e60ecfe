"""Voxel metrics against definitions and MONAI; the comparison on a results folder in miniature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from braing3n.evaluation.reconstruct import VIEWS, held_out, intervals, mean_volumes, run_reconstruction
from braing3n.evaluation.similarity import Original, data_range, smoothed
from braing3n.volumes.feed import VolumeFeed


def ball(n: int = 40, seed: int = 0) -> np.ndarray:
    """Smooth random tissue in a ball, background 0."""
    axes = np.ogrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j, -1 : 1 : n * 1j]
    tissue = smoothed(np.random.default_rng(seed).normal(size=(n, n, n))) * 8
    return np.where(sum(a**2 for a in axes) < 0.6, tissue, 0).astype(np.float32)


def test_ssim_equals_monai_where_no_window_meets_the_border():
    from monai.metrics.regression import compute_ssim_and_cs

    x = ball()
    y = x + 0.3 * np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    original = Original(x)
    found = original.ssim_map(y[original.box])
    reference, _ = compute_ssim_and_cs(
        torch.from_numpy(y)[None, None], torch.from_numpy(x)[None, None], 3, (11,) * 3, (1.5,) * 3, data_range(x)
    )
    whole = np.full(x.shape, np.nan)
    whole[original.box] = found
    np.testing.assert_allclose(whole[5:-5, 5:-5, 5:-5], reference[0, 0].numpy(), atol=2e-4)


def test_known_errors_give_known_scores():
    x = ball()
    original, brain = Original(x), x != 0
    shifted = np.where(brain, x + 0.5, 123.0)  # nothing outside the brain counts
    scores = original.compare(shifted.astype(np.float32))
    assert scores["l1"] == pytest.approx(0.5, rel=1e-5)
    assert scores["psnr"] == pytest.approx(20 * np.log10(data_range(x) / 0.5), rel=1e-5)
    assert original.compare(x)["ssim"] == pytest.approx(1)
    worse = original.compare(x + np.random.default_rng(0).normal(size=x.shape).astype(np.float32))
    assert worse["ssim"] < 0.9


def test_a_region_restricts_the_scores():
    x = ball()
    half = np.zeros(x.shape, dtype=bool)
    half[: len(x) // 2] = True
    y = np.where(half, x + 1, x).astype(np.float32)
    assert Original(x).compare(y, half)["l1"] == pytest.approx(1, rel=1e-5)
    assert Original(x).compare(y, ~half)["l1"] == pytest.approx(0, abs=1e-6)


def test_reconstructions_of_held_out_volumes_are_scored_and_kept(trained, tmp_path):
    table = run_reconstruction(trained.metadata, trained.results, trained.mae, trained.tokenizer, tmp_path / "figures")
    rows = held_out(trained.metadata)
    assert set(rows["split"]) <= {"val", "test"}
    value = table.set_index(["encoder", "task", "slice", "metric"])
    for method, task in (
        ("tokenizer", "brain"),
        ("mean-volume", "brain"),
        ("mae", "masked patches"),
        ("mean-volume", "masked patches"),
    ):
        for metric in ("l1", "psnr", "ssim"):
            row = value.loc[(method, task, "pooled", metric)]
            assert np.isfinite(row["value"])
            assert np.isnan(row["ci_low"])  # too few persons
            assert row["n_scans"] == len(rows)
            assert row["n_subjects"] == rows["person_id"].nunique()
    for modality in rows["modality"].unique():
        with np.load(tmp_path / "figures" / f"{modality}.npz") as content:
            ids = content["volume_id"]
            row = rows[rows["volume_id"] == ids[0]]
            volume = VolumeFeed(row, trained.results).batch([0])[0, 0].numpy()
            for axis, view in enumerate(VIEWS):
                middle = volume.take(volume.shape[axis] // 2, axis=axis)
                np.testing.assert_allclose(content[f"original_{view}"][0], middle, atol=2e-3)
                visible = np.isfinite(content[f"masked_{view}"][0])
                np.testing.assert_allclose(content[f"mae_{view}"][0][visible], middle[visible], atol=2e-3)
                assert content[f"tokenizer_{view}"].shape == content[f"original_{view}"].shape
            assert np.isnan(content["masked_axial"]).any()


def test_intervals_are_over_persons():
    random = np.random.default_rng(0)
    scores = pd.DataFrame(
        {"person": np.repeat(np.arange(30), 2), "l1": random.normal(1, 0.1, 60), "psnr": 20.0, "ssim": 0.5}
    )
    found = intervals(scores)
    assert found["l1"].low < found["l1"].value < found["l1"].high
    assert found["l1"].high - found["l1"].low == pytest.approx(4 * 0.1 / np.sqrt(60), rel=0.4)
    assert (found["psnr"].low, found["psnr"].high) == (20, 20)


def test_mean_volume_is_of_training_volumes_alone(trained):
    means = mean_volumes(trained.metadata, trained.results, ("T1",))
    train = trained.metadata.query("split == 'train' and modality == 'T1'")
    expected = VolumeFeed(train, trained.results).batch(np.arange(len(train)))[:, 0].mean(0).numpy()
    np.testing.assert_allclose(means["T1"], expected, atol=1e-5)


def test_nothing_held_out_leaves_an_empty_table(trained, tmp_path):
    metadata = trained.metadata.assign(split="train")
    table = run_reconstruction(metadata, trained.results, trained.mae, trained.tokenizer, tmp_path / "figures")
    assert table.empty
    assert list((tmp_path / "figures").iterdir()) == []
