"""Effects planted in simulated volumes, read from the store by an encoder and recovered by the panel."""

from __future__ import annotations

import pandas as pd
import pytest

from braing3n.config.training import ProbeSettings
from braing3n.encoders.encode import encode_cohort
from braing3n.phantom.final_grid import COHORT, write_final_grid_set
from braing3n.phantom.people import Effects
from braing3n.probing.panel import run_panel

pytestmark = pytest.mark.slow
VOLUMES = 60
TASKS = """version: 1
tasks:
  - {id: A, name: age, title: x, kind: regression, field: age_at_scan, status: named, evidence: ''}
  - {id: B, name: sex, title: x, kind: classification, field: sex, classes: {F: [F], M: [M]}, status: named,
     evidence: ''}
"""


@pytest.fixture(scope="module")
def probed(atlas_dir, tmp_path_factory) -> pd.DataFrame:
    """Ventricles, cortex and contrast change with age; the sexes do not differ at all."""
    results = tmp_path_factory.mktemp("phantoms")
    effects = Effects(ventricle_mm_per_year=0.08, dimorphism_mm=0, person_spread=0.5)
    metadata = write_final_grid_set(atlas_dir, results, VOLUMES, 7, effects=effects, shard_size=VOLUMES, workers=1)
    for encoder in ("regions", "pca"):
        table = results / f"features/{encoder}/{COHORT}.parquet"
        encode_cohort(encoder, metadata, results, COHORT, results / "models/mae", table, device="cpu")
    (results / "tasks.yaml").write_text(TASKS)
    settings = ProbeSettings(
        encoders=("regions", "pca"), tasks=results / "tasks.yaml", min_class_persons=5, bootstrap=500
    )
    table = run_panel(metadata, results, settings)
    return table.set_index(["table", "encoder", "task", "slice", "metric"]).sort_index()


def test_age_is_recovered_from_regional_volumes(probed):
    row = probed.loc["recommended", "regions", "age", "T1", "r2"]
    assert row["value"] > 0.4
    assert row["ci_low"] > 0
    assert row["n_subjects"] == row["n_scans"] > 20


@pytest.mark.parametrize("encoder", ["regions", "pca"])
def test_sex_is_not_told_where_it_has_no_effect(probed, encoder):
    row = probed.loc["recommended", encoder, "sex", "T1", "auc"]
    assert row["ci_low"] < 0.5 < row["ci_high"]
