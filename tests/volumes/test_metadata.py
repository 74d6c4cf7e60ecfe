"""The metadata table and its ledger, from a small index and hand-made status and store tables."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from braing3n.cohorts.index import build_index
from braing3n.config import Config, load_config
from braing3n.config.data import CohortSource, QCSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, read_parquet, write_parquet
from braing3n.phantom.layouts.archives import ixi, upenn_gbm
from braing3n.phantom.layouts.tree import Tree
from braing3n.volumes.metadata import build_metadata, load_metadata, write_metadata


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Results folder with an index of two cohorts, and status and store tables as the last step would leave them."""
    folder = tmp_path_factory.mktemp("metadata")
    ixi(Tree(folder / "IXI"), 12, 6, True)
    upenn_gbm(Tree(folder / "UPENN-GBM"), 8, 2, True)
    results = folder / "results"
    config = load_config([Path(__file__).parents[2] / "config/config.yaml"]).model_dump() | {
        "cohorts": {name: CohortSource(root=folder / name) for name in ("IXI", "UPENN-GBM")}
    }
    config["pathvars"]["results"], config["index"]["shard_size"] = results, 4
    assert not build_index(Config.model_validate(config)).errors
    for cohort, entry in read_json(results / "index/shards.json")["cohorts"].items():
        for shard in entry["shards"]:
            preprocess(results, cohort, shard)
    return results


@pytest.fixture
def indexed(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "results"))


def preprocess(results, cohort, shard, failed=(), qc=None):
    """Write the status and store tables of one shard; volumes in `failed` did not make it through registration."""
    rows = read_parquet(results / f"index/shards/{cohort}/{shard}.parquet")
    bad = rows["volume_id"].isin(failed)
    measures = {"brain_ml": 1300.0, "atlas_correlation": 0.9, "atlas_dice": 0.95, "scale": 1.0} | (qc or {})
    status = rows[["volume_id", "cohort", "subject_id", "session_id", "modality"]].assign(
        status=np.where(bad, "failed", "ok"),
        reason=np.where(bad, "registration ran out of time", ""),
        error_class="",
        failed_step=np.where(bad, "register", ""),
        qc=json.dumps(measures),
    )
    write_parquet(results / f"status/crop/{cohort}/{shard}.parquet", status)
    stored = rows.loc[~bad, ["volume_id"]].reset_index(drop=True)
    stored = stored.assign(
        row=range(len(stored)), scale=0.02, mean=300.0, std=80.0, brain_voxels=1_300_000, sha256="00"
    )
    write_parquet(results / f"volumes/{cohort}/{shard}.parquet", stored)


def test_every_stored_volume_once_with_its_place_in_the_store(indexed, tmp_path):
    message = write_metadata(indexed, tmp_path / "volumes.parquet", tmp_path / "ledger.parquet", QCSettings())
    table, index = load_metadata(tmp_path / "volumes.parquet"), read_parquet(indexed / "index/volumes.parquet")
    assert list(table["volume_id"]) == list(index["volume_id"])
    assert "0 kept volumes flagged" in message
    for row in table.itertuples():
        store = read_parquet(indexed / row.store_file.replace(".npy", ".parquet"))
        assert store.loc[row.store_row, "volume_id"] == row.volume_id
        assert row.store_file == f"volumes/{row.cohort}/{row.shard}.npy"
    assert (table["qc_atlas_dice"] == 0.95).all()


def test_ledger_accounts_for_every_file_and_names_stage_and_reason(indexed):
    index = read_parquet(indexed / "index/volumes.parquet")
    lost = index[index["cohort"] == "IXI"].iloc[0]
    preprocess(indexed, "IXI", lost["shard"], failed=[lost["volume_id"]])
    table, ledger = build_metadata(indexed, QCSettings())
    found = read_parquet(indexed / "index/ledger.parquet")
    assert len(ledger) == len(found)
    assert len(table) == len(index) - 1
    assert (ledger["status"] == "kept").sum() == len(table)
    line = ledger.set_index("volume_id").loc[lost["volume_id"]]
    assert (line["status"], line["stage"], line["reason"]) == ("failed", "register", "registration ran out of time")
    early = ledger[ledger["stage"] == "index"]
    assert set(early["status"]) == {"excluded", "failed"}
    assert (early["reason"] != "").all()
    counts = ledger["status"].value_counts()
    assert counts["kept"] + counts["excluded"] + counts["failed"] == len(found)


@pytest.mark.parametrize(
    ("measure", "flags"),
    [
        ({"brain_ml": 300.0}, "brain_ml"),
        ({"atlas_correlation": 0.2, "scale": 1.7}, "atlas_correlation,scale"),
        ({"atlas_dice": 0.5}, "atlas_dice"),
        ({"atlas_dice": None}, ""),
        ({"leakage": 0.1, "mirror_margin": -0.01, "shear": 0.3}, "shear,leakage,mirror_margin"),
        ({"leakage": 0.0, "mirror_margin": 0.1, "shear": 0.03}, ""),
    ],
)
def test_thresholds_flag_and_drop_nothing(indexed, measure, flags):
    for shard in read_json(indexed / "index/shards.json")["cohorts"]["UPENN-GBM"]["shards"]:
        preprocess(indexed, "UPENN-GBM", shard, qc=measure)
    table, _ = build_metadata(indexed, QCSettings(), ["UPENN-GBM"])
    assert len(table) == 9
    assert set(table["qc_flags"]) == {flags}


def test_one_cohort_alone(indexed):
    table, ledger = build_metadata(indexed, QCSettings(), ["IXI"])
    assert set(table["cohort"]) == set(ledger["cohort"]) == {"IXI"}
    with pytest.raises(BrainG3NError, match="not in the index: NONE"):
        build_metadata(indexed, QCSettings(), ["NONE"])


def test_status_of_another_index_is_refused(indexed):
    path = next((indexed / "status/crop/IXI").glob("*.parquet"))
    write_parquet(path, read_parquet(path).iloc[1:])
    with pytest.raises(BrainG3NError, match="do not belong to this index"):
        build_metadata(indexed, QCSettings())


def test_store_and_status_must_agree(indexed):
    path = next((indexed / "volumes/IXI").glob("*.parquet"))
    write_parquet(path, read_parquet(path).iloc[1:])
    with pytest.raises(BrainG3NError, match="disagree about which volumes are stored"):
        build_metadata(indexed, QCSettings())


def test_load_refuses_a_person_in_two_splits(indexed, tmp_path):
    table, _ = build_metadata(indexed, QCSettings())
    person = table["person_id"].value_counts().index[0]
    rows = table.index[table["person_id"] == person]
    table.loc[rows[0], "split"] = {"train": "val"}.get(table.loc[rows[0], "split"], "train")
    write_parquet(tmp_path / "leaky.parquet", table)
    with pytest.raises(BrainG3NError, match=f"several splits.*{person}"):
        load_metadata(tmp_path / "leaky.parquet")


def test_load_refuses_values_outside_the_schema(indexed, tmp_path):
    table, _ = build_metadata(indexed, QCSettings())
    write_parquet(tmp_path / "wrong.parquet", table.assign(sex=pd.Series(["X"] * len(table), dtype="str")))
    with pytest.raises(BrainG3NError, match=r"schema.*sex.*X"):
        load_metadata(tmp_path / "wrong.parquet")
    with pytest.raises(BrainG3NError, match="missing"):
        load_metadata(tmp_path / "none.parquet")
