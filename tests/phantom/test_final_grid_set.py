"""Volumes on the final grid, with metadata that later stages accept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from braing3n.geometry import VOLUME_SHAPE
from braing3n.phantom.final_grid import final_grid_plan, final_grid_set, write_final_grid_set
from braing3n.phantom.people import Effects
from braing3n.volumes.metadata import load_metadata
from braing3n.volumes.store import read_volume


@pytest.fixture(scope="module")
def known() -> pd.DataFrame:
    plan = final_grid_plan(400, 2025)
    return pd.DataFrame([scan.known | {"modality": scan.scan.modality} for scan in plan])


def test_persons_are_many_and_balanced(known):
    assert len(known) == 400
    assert known.volume_id.is_unique
    persons = known.drop_duplicates("person_id")
    assert len(persons) > 180
    assert 0.45 < (persons.sex == "F").mean() < 0.55
    counts = persons.diagnosis.value_counts()
    assert counts["HC"] > counts["MCI"] > 20
    assert counts["AD"] > 20
    assert counts["GBM"] > 10
    assert set(known.modality) == {"T1", "T2", "FLAIR", "T1c"}
    assert (known.groupby("person_id").split.nunique() == 1).all()
    assert set(known.split) == {"train", "val", "test"}
    assert pd.crosstab(persons.sex, persons.diagnosis).min().min() > 5  # sex is not told by disease
    assert pd.crosstab(persons.site, persons.diagnosis).min().min() > 0


def test_effects_are_planted_and_can_be_taken_out():
    plan = final_grid_plan(200, 1)
    table = pd.DataFrame([vars(scan.subject) | scan.known for scan in plan])
    healthy = table[(table.diagnosis == "HC")]
    assert np.corrcoef(healthy.age, healthy.ventricle_mm)[0, 1] > 0.8
    old = table[table.age > 60]
    loss = old.groupby("diagnosis").hippocampal_atrophy.mean()
    assert loss["AD"] > loss["MCI"] > loss["HC"]
    assert (table[table.sex == "M"].dimorphism_mm > 0).all()
    nothing = Effects(
        ventricle_mm_per_year=0,
        ventricle_mm_severity=0,
        cortical_per_year=0,
        cortical_severity=0,
        hippocampal_per_year=0,
        hippocampal_severity=0,
        lesions_per_year=0,
        contrast_loss_per_year=0,
        male_scale=1,
        dimorphism_mm=0,
        deformation_mm=0,
        person_spread=0,
    )
    for scan in final_grid_plan(20, 1, nothing):
        effects = vars(scan.subject) | {"affine": None, "deformation_seed": None, "tumour": None}
        assert not any(effects.values())


def test_volumes_come_one_at_a_time_and_again_the_same(anatomy):
    (first, row), (second, _) = final_grid_set(anatomy, 2, 5)
    assert first.shape == second.shape == VOLUME_SHAPE
    assert first.dtype == np.float32
    assert 1.1e6 < (first > 0).sum() < 1.8e6
    assert first.min() == 0
    assert row["ventricle_ml"] > 5
    again, _ = next(final_grid_set(anatomy, 2, 5))
    assert again.tobytes() == first.tobytes()


def test_written_set_is_a_results_folder(anatomy, atlas_dir, tmp_path):
    written = write_final_grid_set(atlas_dir, tmp_path, 2, 5, shard_size=1, workers=1)
    table = load_metadata(tmp_path / "metadata" / "volumes.parquet")
    pd.testing.assert_frame_equal(table, written)
    assert sorted(set(table.store_file)) == ["volumes/PHANTOM/0000.npy", "volumes/PHANTOM/0001.npy"]
    expected, _ = next(final_grid_set(anatomy, 2, 5))
    row = table.iloc[0]
    assert np.abs(read_volume(tmp_path, row) - expected).max() <= 0.51 * row.scale
    truth = pd.read_parquet(tmp_path / "truth.parquet")
    assert list(truth.volume_id) == list(table.volume_id)
