"""What the further columns are for: confounds are exposed, choices are honest, encoders are compared in pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from braing3n.config.training import ProbeSettings
from braing3n.probing.cohorts import inner_cohorts
from braing3n.probing.compare import holm_rows
from braing3n.probing.panel import run_panel

TASKS = """version: 1
tasks:
  - {id: A, name: hc-vs-ad, title: x, kind: classification, field: diagnosis, classes: {HC: [HC], AD: [AD]},
     status: named, evidence: ''}
  - {id: B, name: age, title: x, kind: regression, field: age_at_scan, status: named, evidence: ''}
"""


def probe_settings(folder, **changes) -> ProbeSettings:
    (folder / "tasks.yaml").write_text(TASKS)
    defaults = {"folds": 4, "bootstrap": 200, "tasks": folder / "tasks.yaml", "protocols": ("recommended",)}
    return ProbeSettings(**defaults | changes)


@pytest.fixture(scope="module")
def confounded(tmp_path_factory, simulated):
    """Diagnosis follows the cohort (nine to one), and features know the cohort and nothing else."""
    results, metadata = tmp_path_factory.mktemp("confounded"), simulated.metadata(160, scans=(1,))
    random = np.random.default_rng(5)
    names = np.array(["C1", "C2", "C3", "C4"])
    cohort = pd.factorize(metadata["person_id"])[0] % 4
    metadata["cohort"] = metadata["site"] = names[cohort]
    metadata["person_id"] = metadata["cohort"] + ":" + metadata["person_id"]
    mostly_ill = np.isin(cohort, (0, 2))
    by_person = dict(zip(metadata["person_id"], random.random(len(metadata)), strict=True))
    ill = metadata["person_id"].map(by_person).to_numpy() < np.where(mostly_ill, 0.9, 0.1)
    metadata["diagnosis"] = np.where(ill, "AD", "HC")
    features = random.normal(size=(len(metadata), 8)).astype(np.float32)
    features[:, :4] += 6 * np.eye(4, dtype=np.float32)[cohort]
    simulated.write(results, "mae", metadata, features)
    settings = probe_settings(results, encoders=("mae", "site"), min_class_persons=3)
    return run_panel(metadata, results, settings).set_index(["encoder", "task", "slice", "metric"]).sort_index()


def test_a_planted_site_confound_is_exposed(confounded):
    auc = confounded["value"].xs("auc", level="metric").xs("hc-vs-ad", level="task")
    assert auc["mae", "pooled"] > 0.8
    assert auc["site", "pooled"] == pytest.approx(auc["mae", "pooled"], abs=0.08)  # the floor reaches as high
    assert auc["mae", "leave one cohort out"] < 0.65
    within = confounded.loc["mae", "hc-vs-ad"].filter(like="within", axis=0).xs("auc", level="metric")
    assert len(within) >= 2
    assert (within["ci_low"] < 0.5).all()


def test_leave_one_cohort_out_tests_every_cohort(confounded):
    row = confounded.loc["mae", "hc-vs-ad", "leave one cohort out", "auc"]
    assert row["n_subjects"] == row["n_scans"] == 160


def test_difference_to_another_encoder_is_paired(confounded):
    row = confounded.loc["mae", "hc-vs-ad", "pooled", "auc_minus_site"]
    auc = confounded["value"]
    assert row["value"] == pytest.approx(
        auc["mae", "hc-vs-ad", "pooled", "auc"] - auc["site", "hc-vs-ad", "pooled", "auc"]
    )
    assert row["ci_low"] <= 0 <= row["ci_high"]
    assert auc["mae", "hc-vs-ad", "pooled", "auc_minus_site_p"] > 0.05
    assert 0 <= auc["mae", "hc-vs-ad", "pooled", "auc_minus_site_p_folds"] <= 1


def test_holm_families_are_the_panels_tasks():
    common = {"table": "recommended", "slice": "pooled", "encoder": "mae"}
    rows = [
        common | {"task": t, "metric": "auc_minus_pca_p", "value": v} for t, v in (("a", 0.01), ("b", 0.04), ("x", 0))
    ]
    rows.append(common | {"task": "a", "metric": "auc_minus_pca_p_folds", "value": 0.5})
    found = holm_rows(rows, {"a", "b"})
    assert [(r["task"], r["metric"], r["value"]) for r in found] == [
        ("a", "auc_minus_pca_p_holm", 0.02),
        ("b", "auc_minus_pca_p_holm", 0.04),
    ]


def test_regression_and_classification_share_a_family():
    common = {"table": "recommended", "slice": "pooled", "encoder": "mae", "value": 0.02}
    rows = [common | {"task": "a", "metric": "auc_minus_pca_p"}, common | {"task": "b", "metric": "r2_minus_pca_p"}]
    assert [r["value"] for r in holm_rows(rows, {"a", "b"})] == [0.04, 0.04]


def test_inner_cohorts_leave_the_tested_one_alone():
    fold = np.repeat(np.arange(6), [50, 40, 30, 20, 10, 5])
    for left_out in range(6):
        inner = inner_cohorts(fold, left_out)
        assert ((inner == 0) == (fold == left_out)).all()
        assert set(inner) == {0, 1, 2, 3, 4}
        assert all(len(set(inner[fold == c])) == 1 for c in range(6))


@pytest.fixture(scope="module")
def two_modalities(tmp_path_factory, simulated):
    """T2 shows the diagnosis, T1 does not; ages are there in both."""
    results, metadata = tmp_path_factory.mktemp("modalities"), simulated.metadata(120, scans=(1,))
    features = simulated.features(metadata)
    t1 = (metadata["modality"] == "T1").to_numpy()
    features[:, 1] += np.where(metadata["diagnosis"] == "AD", 1.5, -1.5)
    features[t1, 1] = np.random.default_rng(0).normal(size=t1.sum())
    simulated.write(results, "mae", metadata, features)
    settings = probe_settings(results, encoders=("mae",), min_class_persons=5)
    return run_panel(metadata, results, settings).set_index(["task", "slice", "metric"]).sort_index()


def test_best_modality_is_the_informative_one(two_modalities):
    auc = two_modalities["value"].xs("auc", level="metric")["hc-vs-ad"]
    assert auc["T2"] > auc["T1"] + 0.2
    best = two_modalities.loc["hc-vs-ad", "best modality", "auc"]
    assert best["value"] == pytest.approx(auc["T2"], abs=0.05)
    assert best["n_scans"] == two_modalities.loc["hc-vs-ad", "T2", "auc"]["n_scans"]


def test_bias_correction_and_subgroups_of_brain_age(two_modalities):
    age = two_modalities.loc["age"]["value"]
    assert age["pooled", "slope"] < 0.7
    assert age["pooled", "slope_bias_corrected"] == pytest.approx(1, abs=0.3)
    slices = set(two_modalities.loc["age"].index.get_level_values("slice"))
    assert {"pooled, sex F", "pooled, sex M", "pooled, age 40 to 60"} <= slices
    parts = two_modalities.loc["age"]["n_subjects"]
    total = parts["pooled, sex F", "mae"] + parts["pooled, sex M", "mae"]
    assert total == parts["pooled", "mae"]
