"""The whole panel on a simulated population whose effects are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from braing3n.config.training import ProbeSettings
from braing3n.errors import BrainG3NError
from braing3n.files import write_parquet
from braing3n.probing.cells import Cell, cells, one_scan_per_person
from braing3n.probing.panel import load_sources, run_panel
from braing3n.probing.scores import estimator, fit_and_score, out_of_fold, reduced
from braing3n.probing.sources import Source, demographics, load_source, sites
from braing3n.probing.tasks import load_tasks

PANEL = "config/tasks.yaml"


def probe_settings(**changes) -> ProbeSettings:
    defaults = {"encoders": ("mae", "demographics"), "folds": 4, "bootstrap": 200, "tasks": PANEL}
    return ProbeSettings(**defaults | changes)


@pytest.fixture(scope="module")
def table(tmp_path_factory, simulated):
    results, metadata = tmp_path_factory.mktemp("results"), simulated.metadata(90)
    simulated.write(results, "mae", metadata, simulated.features(metadata))
    encoders = ("mae", "demographics", "site", "absent")
    return run_panel(metadata, results, probe_settings(encoders=encoders))


def value(table, **wanted):
    rows = table
    for column, text in wanted.items():
        rows = rows[rows["table" if column == "protocol" else column] == text]
    assert len(rows) == 1, f"{len(rows)} rows for {wanted}"
    return rows.iloc[0]


@pytest.mark.parametrize("protocol", ["recommended", "recommended-all-scans", "published"])
def test_planted_effects_are_recovered(table, protocol):
    where = {"protocol": protocol, "encoder": "mae", "slice": "pooled"}
    for task, metric, least in (
        ("hc-vs-ad", "auc", 0.8),
        ("modality", "auc", 0.75),
        ("age", "r2", 0.3),
    ):
        row = value(table, **where, task=task, metric=metric)
        assert row["value"] > least
        assert row["ci_low"] < row["value"] < row["ci_high"]
    assert 0.35 < value(table, **where, task="age", metric="slope")["value"] < 0.65  # half of the variance is noise


def test_absent_effects_cover_chance(table):
    for protocol in ("recommended", "published"):
        row = value(table, protocol=protocol, encoder="mae", slice="pooled", task="sex", metric="auc")
        assert row["ci_low"] < 0.5 < row["ci_high"] + 0.05


def test_every_encoder_shares_scans_and_folds(table):
    scored = table[table["split_hash"].notna() & (table["slice"] != "best modality")]  # there each chooses its own
    shared = scored.groupby(["table", "task", "slice"])[["split_hash", "n_scans", "n_subjects"]].nunique()
    assert (shared == 1).all().all()


def test_one_scan_per_person_is_counted_so(table):
    rows = table[(table["table"] == "recommended") & table["task"].notna()]
    assert (rows["n_scans"] == rows["n_subjects"]).all()
    everyone = value(table, protocol="published", encoder="mae", slice="pooled", task="age", metric="mae")
    assert everyone["n_scans"] > everyone["n_subjects"] == 90


def test_too_few_persons_leave_a_dash_that_says_so(table):
    row = value(table, protocol="recommended", encoder="mae", slice="pooled", task="idh1", metric="auc")
    assert np.isnan(row["value"])
    assert (
        value(table, protocol="recommended", encoder="mae", slice="pooled", task="idh1", metric="too_few")["value"] == 0
    )


def test_site_probe_does_not_see_the_site_it_is_asked_for(table):
    assert np.isnan(
        value(table, protocol="published", encoder="site", slice="pooled", task="site", metric="auc")["value"]
    )
    cohort = value(table, protocol="published", encoder="demographics", slice="pooled", task="cohort", metric="auc")
    assert 0.2 < cohort["value"] < 0.8


def test_encoder_without_features_is_named(table):
    assert value(table, encoder="absent", metric="unavailable")["value"] == 1


def test_what_the_paper_states_stands_in_the_table(table):
    row = value(table, protocol="paper", task="age", encoder="mae")
    assert (row["metric"], row["value"], row["slice"]) == ("mae", 4.43, "pooled")
    assert value(table, protocol="paper", task="idh1")["slice"] == "T1c"
    assert value(table, protocol="paper", task="vendor")["ci_low"] == 0.94  # "exceeds"
    assert np.isnan(value(table, protocol="paper", task="sex")["ci_low"])


def test_sites_are_counted(table):
    row = value(table, protocol="published", encoder="mae", slice="pooled", task="age", metric="sites")
    assert row["value"] == 4


def test_planted_leak_is_refused_before_anything_is_fitted():
    """The same person in two folds."""
    task = next(t for t in load_tasks(PANEL) if t.name == "hc-vs-ad")
    persons, fold, labels = np.repeat(np.arange(20), 2), np.arange(40) % 4, np.arange(40) // 2 % 2
    cell = Cell(task, "pooled", "published", np.arange(40), labels, ("HC", "AD"), persons, fold, "", None, 10)
    source = Source("mae", np.ones(40, bool), lambda task: np.empty((40, 0)))
    with pytest.raises(BrainG3NError, match=r"folds share persons, so that .* would be inflated.*20 in several"):
        fit_and_score(cell, source, np.zeros((40, 2), np.float32), probe_settings())


def test_tokenizer_of_another_width_is_probed_from_the_maes_features(tmp_path, simulated):
    """The mean of projected tokens is the projection of their mean."""
    from safetensors.numpy import save_file

    metadata = simulated.metadata(20)
    features, projection = simulated.features(metadata), np.random.default_rng(0).normal(size=(8, simulated.dimension))
    simulated.write(tmp_path, "mae", metadata, features)
    with pytest.raises(BrainG3NError, match=r"no such tokenizer.*tokenizer.model.latent and --out .*tokenizer-8"):
        load_source("tokenizer-8", metadata, tmp_path, 8)
    (tmp_path / "models/tokenizer-8").mkdir(parents=True)
    save_file({"projection.weight": projection.astype("f4")}, tmp_path / "models/tokenizer-8/model.safetensors")
    found = load_source("tokenizer-8", metadata, tmp_path, 8).matrix(None)
    np.testing.assert_allclose(found, features @ projection.T, rtol=1e-4, atol=1e-4)


def test_results_are_reproducible(tmp_path, simulated):
    metadata = simulated.metadata(60)
    simulated.write(tmp_path, "mae", metadata, simulated.features(metadata))
    settings = probe_settings(encoders=("mae",), protocols=("recommended",))
    first, again = (run_panel(metadata, tmp_path, settings) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)


def test_principal_components_are_fitted_without_the_test_fold():
    """Fold 0 alone varies wildly along a useless axis; one component fitted on the others keeps the useful one."""
    random = np.random.default_rng(0)
    fold, labels = np.arange(80) % 4, np.arange(80) // 4 % 2
    X = random.normal(size=(80, 3)) * 0.1
    X[:, 0] += np.where(labels == 1, 1, -1)
    X[fold == 0, 1] += random.normal(size=20) * 10
    task = next(t for t in load_tasks(PANEL) if t.name == "hc-vs-ad")
    cell = Cell(task, "pooled", "recommended", np.arange(80), labels, ("HC", "AD"), np.arange(80), fold, "", None, 40)
    fit = estimator(task, 2, "recommended", probe_settings())
    out = out_of_fold(cell, X.astype(np.float32), lambda X, training: reduced(X, training, 1, 0), fit, 4)
    assert ((out.predictions[:, 1] > 0.5) == labels)[fold == 0].all()


def test_as_many_components_as_scans_still_show_what_is_planted(tmp_path, simulated):
    """With a component for every training scan, each scaled by its own deviation, inner folds would see nothing."""
    metadata = simulated.metadata(100, scans=(1,))
    random = np.random.default_rng(3)
    signal = simulated.features(metadata, effect=3.0) @ random.normal(size=(simulated.dimension, 400))
    blocks = signal + random.normal(size=signal.shape)
    simulated.write(tmp_path, "pca", metadata, blocks.astype(np.float32))
    settings = probe_settings(encoders=("pca",), protocols=("recommended",))
    table = run_panel(metadata, tmp_path, settings).set_index(["slice", "task", "metric"])["value"]
    assert table["T1", "age", "r2"] > 0.7
    assert table["T1", "hc-vs-ad", "auc"] > 0.95


def test_pca_keeps_as_many_components_as_the_first_encoder_has_features(tmp_path, simulated):
    metadata = simulated.metadata(20)
    for name, width in (("mae", 7), ("pca", 24)):
        simulated.write(tmp_path, name, metadata, simulated.features(metadata)[:, :width])
    sources, _ = load_sources(metadata, tmp_path, probe_settings(encoders=("demographics", "mae", "pca")))
    assert [source.components for source in sources] == [None, None, 7]
    sources, _ = load_sources(metadata, tmp_path, probe_settings(encoders=("pca", "mae")))
    assert sources[0].components == 1152


def test_pca_drops_blocks_outside_every_brain(tmp_path, simulated):
    metadata = simulated.metadata(20)
    features = simulated.features(metadata)
    features[:, 5] = 0
    simulated.write(tmp_path, "pca", metadata, features)
    source = load_source("pca", metadata, tmp_path, components=5)
    assert source.components == 5
    assert source.matrix(None).shape[1] == simulated.dimension - 1


def test_cells_keep_a_persons_fold_over_slices(simulated):
    metadata = simulated.metadata(80)
    task = next(t for t in load_tasks(PANEL) if t.name == "hc-vs-ad")
    found = list(cells(task, metadata, np.ones(len(metadata), bool), probe_settings()))
    fold_of = {}
    for cell in found:
        if cell.protocol == "published" or cell.too_few:
            continue
        for person, fold in zip(cell.persons, cell.fold, strict=True):
            assert fold_of.setdefault(person, fold) == fold
    assert len(fold_of) == 80
    assert {(c.slice, c.protocol) for c in found if not c.too_few} >= {("T1", "recommended"), ("T2", "published")}


def test_small_classes_are_left_out_where_two_remain(simulated):
    metadata = simulated.metadata(80)
    metadata["vendor"] = ["Siemens", "GE"] * (len(metadata) // 2) + ["Siemens"] * (len(metadata) % 2)
    metadata.loc[0, "vendor"] = "Philips"
    task = next(t for t in load_tasks(PANEL) if t.name == "vendor")
    cell = next(cells(task, metadata, np.ones(len(metadata), bool), probe_settings(protocols=("published",))))
    assert cell.classes == ("Siemens", "GE")
    assert set(cell.values) == {0, 1}


def test_one_scan_per_person_does_not_depend_on_the_order():
    persons, ids = np.array(list("aabbc")), np.array(["3", "1", "2", "0", "9"])
    rows = one_scan_per_person(np.arange(5), persons, ids)
    assert ids[rows].tolist() == ["1", "0", "9"]
    order = np.array([4, 2, 0, 3, 1])
    assert set(one_scan_per_person(order, persons, ids)) == set(rows)


def test_features_are_matched_by_volume_id(tmp_path, simulated):
    metadata = simulated.metadata(20)
    features = simulated.features(metadata)
    simulated.write(tmp_path, "mae", metadata, features)
    for file in (tmp_path / "features/mae").rglob("*.parquet"):
        write_parquet(file, pd.read_parquet(file).iloc[::-1].reset_index(drop=True))
    source = load_source("mae", metadata, tmp_path, 8)
    np.testing.assert_array_equal(source.matrix(None), features)
    missing = next((tmp_path / "features/mae").rglob("*.parquet"))
    lost = set(pd.read_parquet(missing)["volume_id"])
    missing.unlink()
    present = load_source("mae", metadata, tmp_path, 8).present
    assert set(metadata["volume_id"][~present]) == lost


def test_pooling_is_a_column(tmp_path, simulated):
    metadata = simulated.metadata(20)
    simulated.write(tmp_path, "mae", metadata, simulated.features(metadata), column="feature_brain")
    assert load_source("mae-brain", metadata, tmp_path, 8).matrix(None).shape == (len(metadata), simulated.dimension)
    with pytest.raises(BrainG3NError, match="has no column feature_cls"):
        load_source("mae-cls", metadata, tmp_path, 8)
    with pytest.raises(BrainG3NError, match="there are no features of 'other'"):
        load_source("other", metadata, tmp_path, 8)


def test_controls_leave_out_what_is_asked(simulated):
    metadata, tasks = simulated.metadata(20), {t.name: t for t in load_tasks(PANEL)}
    assert demographics(metadata, tasks["hc-vs-ad"]).shape[1] == 4
    assert demographics(metadata, tasks["age"]).shape[1] == 2
    assert demographics(metadata, tasks["sex"]).shape[1] == 2
    assert sites(metadata, tasks["sex"]).sum(1).tolist() == [1.0] * len(metadata)
    assert sites(metadata, tasks["site"]).shape[1] == 0
