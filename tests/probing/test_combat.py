"""Site effects planted, taken out, and never estimated on test scans."""

from __future__ import annotations

import numpy as np
import pytest

from braing3n.config.training import ProbeSettings
from braing3n.probing.combat import shrunk, site_effects
from braing3n.probing.panel import run_panel


def planted(n: int = 300, d: int = 40, seed: int = 0):
    """Clean features, the same with shift and spread of three sites, and the sites."""
    random = np.random.default_rng(seed)
    clean, sites = random.normal(size=(n, d)), np.arange(n) % 3
    shift, spread = random.normal(size=(3, d)) + np.array([[0], [2], [-1]]), np.array([[0.5], [1.0], [2.0]])
    return clean, (clean * spread[sites] + shift[sites]).astype(np.float32), sites


def test_planted_effects_are_taken_out_of_training_and_test_scans():
    clean, X, sites = planted()
    training = np.arange(300) < 200
    found = site_effects(X[training], sites[training]).remove(X, sites)
    for part in (training, ~training):
        means = np.stack([found[part & (sites == s)].mean(0) for s in range(3)])
        stds = np.stack([found[part & (sites == s)].std(0) for s in range(3)])
        assert np.ptp(means, axis=0).mean() < 0.6  # was about 3
        assert np.ptp(stds, axis=0).mean() < 0.6  # was 1.5
    correlation = [np.corrcoef(found[:, j], clean[:, j])[0, 1] for j in range(40)]
    assert np.mean(correlation) > 0.97


def test_scans_of_unknown_sites_are_left_alone():
    _, X, sites = planted()
    effects = site_effects(X[sites < 2], sites[sites < 2])
    np.testing.assert_array_equal(effects.remove(X, sites)[sites == 2], X[sites == 2])
    lonely = np.where(np.arange(300) == 0, 9, sites)  # one scan gives no spread
    assert 9 not in site_effects(X, lonely).sites
    one_site = site_effects(X, np.zeros(300, dtype=int))
    np.testing.assert_array_equal(one_site.remove(X, np.zeros(300, dtype=int)), X)


def test_constant_features_stay():
    _, X, sites = planted()
    X[:, 3] = 7
    found = site_effects(X, sites).remove(X, sites)
    assert (found[:, 3] == 7).all()
    assert np.isfinite(found).all()


def test_shrinkage_is_the_posterior_of_johnson_2007():
    """Both conditional posterior means hold at once, written out for each site and feature."""
    random = np.random.default_rng(0)
    counts, shift, variance = np.array([5.0, 50.0]), random.normal(size=(2, 30)), random.gamma(4.0, 0.25, (2, 30))
    gamma, delta = shrunk(shift, variance, counts, np.ones(30, dtype=bool))
    for s, n in enumerate(counts):
        mean, tau = shift[s].mean(), shift[s].var()
        m, v = variance[s].mean(), variance[s].var()
        for j in range(30):
            assert gamma[s, j] == pytest.approx((n * tau * shift[s, j] + delta[s, j] * mean) / (n * tau + delta[s, j]))
            squares = (n - 1) * variance[s, j] + n * (shift[s, j] - gamma[s, j]) ** 2
            posterior = (m + m**3 / v + squares / 2) / (n / 2 + 2 + m**2 / v - 1)
            assert delta[s, j] == pytest.approx(posterior, rel=1e-4)
    assert np.abs(gamma - shift)[0].mean() > np.abs(gamma - shift)[1].mean()  # few scans, more shrinkage


def test_harmonised_probe_loses_the_site_and_keeps_the_effect(tmp_path, simulated):
    """A site's shift hides the diagnosis' axis; with ComBat in the folds it is read as if there were no sites."""
    metadata = simulated.metadata(120, scans=(1,))
    clean = simulated.features(metadata)
    sites = metadata["site"].astype("category").cat.codes.to_numpy()
    shifted = clean + 4 * np.random.default_rng(3).normal(size=(4, clean.shape[1]))[sites].astype(np.float32)
    simulated.write(tmp_path, "mae", metadata, shifted)
    (tmp_path / "tasks.yaml").write_text(
        "version: 1\ntasks:\n  - {id: A, name: s, title: x, kind: classification, field: site, classes: all,"
        " status: extra, evidence: ''}\n  - {id: B, name: d, title: x, kind: classification, field: diagnosis,"
        " classes: {HC: [HC], AD: [AD]}, status: extra, evidence: ''}\n"
    )
    settings = ProbeSettings(
        encoders=("mae",),
        protocols=("recommended", "recommended-combat"),
        folds=4,
        bootstrap=100,
        tasks=tmp_path / "tasks.yaml",
    )
    found = run_panel(metadata, tmp_path, settings)
    auc = found[(found["metric"] == "auc") & (found["slice"] == "pooled")].set_index(["table", "task"])["value"]
    assert auc["recommended", "s"] > 0.95
    assert auc["recommended-combat", "s"] < 0.7
    assert auc["recommended-combat", "d"] > 0.8
