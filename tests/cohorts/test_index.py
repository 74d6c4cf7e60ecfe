"""The index on disk: sticky shards, rewriting only what changed, independence of order, errors of one cohort."""

import random
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.index import build_index, shard_of, summary
from braing3n.cohorts.scan import assemble, scan_cohort
from braing3n.cohorts.schema import validate_table
from braing3n.cohorts.splits import assert_no_leakage
from braing3n.cohorts.walk import walk
from braing3n.config import Config, load_config
from braing3n.errors import BrainG3NError
from braing3n.files import read_json, read_parquet
from braing3n.phantom.layouts import write_layout
from braing3n.phantom.layouts.tree import Tree

ROOT = Path(__file__).parents[2]


def configuration(folder, cohorts=("IXI",), **index):
    content = load_config([ROOT / "config/config.yaml"]).model_dump()
    content["pathvars"]["results"] = folder / "results"
    content["cohorts"] = {name: {"root": folder / name} for name in cohorts}
    content["index"] |= {"shard_size": 4} | index
    return Config.model_validate(content)


@pytest.fixture(scope="module")
def ixi_template(tmp_path_factory):
    """IXI with 23 volumes of 12 persons, indexed in shards of about four."""
    folder = tmp_path_factory.mktemp("ixi")
    write_layout("IXI", folder / "IXI", 23, 12)
    assert not build_index(configuration(folder)).errors
    return folder


@pytest.fixture
def ixi(ixi_template, tmp_path):
    return Path(shutil.copytree(ixi_template, tmp_path / "copy"))


def snapshot(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_index_is_as_the_contract_says(ixi):
    index = ixi / "results/index"
    volumes, ledger = read_parquet(index / "volumes.parquet"), read_parquet(index / "ledger.parquet")
    validate_table(volumes, "volumes")
    shards = read_json(index / "shards.json")["cohorts"]["IXI"]
    assert shards["n_shards"] == 6
    assert sum(shards["shards"].values()) == len(volumes) == (ledger["status"] == "kept").sum() == 23
    parts = [read_parquet(index / f"shards/IXI/{shard}.parquet") for shard in shards["shards"]]
    assert [len(part) for part in parts] == list(shards["shards"].values())
    together = pd.concat(parts).sort_values("volume_id", ignore_index=True)
    pd.testing.assert_frame_equal(together, volumes.sort_values("volume_id", ignore_index=True))


def test_a_session_never_splits(ixi):
    volumes = read_parquet(ixi / "results/index/volumes.parquet")
    assert (volumes.groupby(["subject_id", "session_id"])["shard"].nunique() == 1).all()
    assert volumes["shard"].nunique() > 1


def test_indexing_again_rewrites_nothing(ixi):
    before = snapshot(ixi / "results")
    result = build_index(configuration(ixi))
    assert result.changed == []
    assert snapshot(ixi / "results") == before


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(100, 999), scan=st.integers(5000, 9999), modality=st.sampled_from(["T1", "T2"]))
def test_adding_a_scan_rewrites_only_its_shard(ixi_template, tmp_path_factory, number, scan, modality):
    folder = Path(shutil.copytree(ixi_template, tmp_path_factory.mktemp("add") / "copy"))
    before = snapshot(folder / "results/index")
    splits = read_parquet(folder / "results/index/volumes.parquet").set_index("volume_id")["split"]
    Tree(folder / "IXI").nifti(f"IXI{number}-HH-{scan}-{modality}.nii.gz")
    assert not build_index(configuration(folder)).errors
    after = snapshot(folder / "results/index")
    shard = shard_of("IXI", f"IXI:IXI{number}", str(scan), 6)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"volumes.parquet", "ledger.parquet", "shards.json", f"shards/IXI/{shard}.parquet"}
    volumes = read_parquet(folder / "results/index/volumes.parquet").set_index("volume_id")
    assert (volumes.loc[splits.index, "split"] == splits).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_order_of_files_changes_nothing(ixi_template, seed):
    definition, root = load_definition("IXI"), ixi_template / "IXI"
    found = walk(root)
    expected = assemble(definition, root, found)
    random.Random(seed).shuffle(found)
    shuffled = assemble(definition, root, found)
    pd.testing.assert_frame_equal(shuffled.rows, expected.rows)
    pd.testing.assert_frame_equal(shuffled.ledger, expected.ledger)


def test_removed_scans_leave_no_stale_shard(ixi):
    volumes = read_parquet(ixi / "results/index/volumes.parquet")
    shard = volumes["shard"].iloc[0]
    for path in volumes.loc[volumes["shard"] == shard, "source_path"]:
        (ixi / "IXI" / path).unlink()
    build_index(configuration(ixi))
    assert not (ixi / f"results/index/shards/IXI/{shard}.parquet").exists()
    assert shard not in read_json(ixi / "results/index/shards.json")["cohorts"]["IXI"]["shards"]
    assert read_json(ixi / "results/index/shards.json")["cohorts"]["IXI"]["n_shards"] == 6


def test_shards_stay_though_the_shard_size_changes(ixi):
    assert build_index(configuration(ixi, shard_size=64)).changed == []


def test_a_cohort_without_a_folder_is_an_error_and_the_others_are_indexed(ixi):
    result = build_index(configuration(ixi, ("IXI", "ADNI")))
    assert len(result.volumes) == 23
    message = str(result.errors["ADNI"])
    for words in (str(ixi / "ADNI"), "does not exist", "ADNI/002_S_0413/", "cohorts.ADNI.root"):
        assert words in message


def test_an_unmounted_cohort_keeps_its_earlier_rows(ixi):
    before = snapshot(ixi / "results")
    (ixi / "IXI").rename(ixi / "elsewhere")
    assert "IXI" in build_index(configuration(ixi)).errors
    assert snapshot(ixi / "results") == before


def test_a_folder_that_matches_nothing_says_what_it_holds(tmp_path):
    Tree(tmp_path / "IXI").nifti("some/other/study/sub-01_T1w.nii.gz")
    message = str(build_index(configuration(tmp_path)).errors["IXI"])
    for words in ("some/other/study/sub-01_T1w.nii.gz", "IXI002-Guys-0828-T1.nii.gz", "braing3n cohorts check IXI"):
        assert words in message


def test_one_cohort_alone_leaves_the_others_as_they_were(ixi):
    write_layout("UPENN-GBM", ixi / "UPENN-GBM", 8, 2)
    both = configuration(ixi, ("IXI", "UPENN-GBM"))
    build_index(both)
    (next((ixi / "IXI").glob("*-T2.nii.gz"))).unlink()
    result = build_index(both, ["UPENN-GBM"])
    assert result.changed == []
    assert len(result.volumes) == 31


def test_a_cohort_taken_out_of_the_configuration_leaves_the_index(ixi):
    write_layout("UPENN-GBM", ixi / "UPENN-GBM", 8, 2)
    build_index(configuration(ixi, ("IXI", "UPENN-GBM")))
    build_index(configuration(ixi))
    assert list(read_json(ixi / "results/index/shards.json")["cohorts"]) == ["IXI"]
    assert not list((ixi / "results/index/shards").glob("UPENN-GBM/*"))


def test_a_cohort_whose_every_file_is_damaged_is_in_the_ledger_alone(ixi):
    for path in (ixi / "IXI").glob("*.nii.gz"):
        path.write_bytes(b"")
    result = build_index(configuration(ixi))
    assert not result.errors
    assert len(result.volumes) == 0
    assert (read_parquet(ixi / "results/index/ledger.parquet")["status"] == "failed").sum() == 23
    assert not list((ixi / "results/index/shards").glob("*/*.parquet"))


def test_unknown_cohort_on_the_command_line(ixi):
    with pytest.raises(BrainG3NError, match="not in the configuration: NONE"):
        build_index(configuration(ixi), ["NONE"])


def test_persons_shared_between_cohorts_share_a_split(tmp_path):
    sizes = {"NKI-RS": (40, 30), "NKI-RS2": (20, 20), "ABIDE-I": (12, 10), "ABIDE-II": (12, 10)}
    for name, (volumes, subjects) in sizes.items():
        write_layout(name, tmp_path / name, volumes, subjects, traps=True)
    result = build_index(configuration(tmp_path, sizes))
    assert not result.errors
    assert_no_leakage(result.volumes)
    shared = result.volumes.groupby("person_id")["cohort"].nunique()
    assert (shared == 2).sum() >= 11
    assert result.volumes["bids_subject"].nunique() == result.volumes["subject_id"].nunique()


def test_summary_counts(ixi):
    line = summary(build_index(configuration(ixi))).iloc[0]
    assert (line["volumes"], line["subjects"], line["kept"], line["failed"]) == (23, 12, 23, 0)
    assert line["modalities"] == "T1:11 T2:12"


def test_volume_ids_do_not_depend_on_the_root(ixi, tmp_path):
    moved = Path(shutil.copytree(ixi / "IXI", tmp_path / "moved"))
    definition = load_definition("IXI")
    assert set(scan_cohort(definition, moved).rows["volume_id"]) == set(
        scan_cohort(definition, ixi / "IXI").rows["volume_id"]
    )


def test_index_command(ixi, capsys):
    import yaml
    from typer.testing import CliRunner

    from braing3n.cli.main import app

    own = {
        "pathvars": {"results": str(ixi / "results")},
        "cohorts": {"IXI": {"root": str(ixi / "IXI")}, "ADNI": {"root": str(ixi / "none")}},
    }
    (ixi / "own.yaml").write_text(yaml.safe_dump(own))
    arguments = ["index", "--config", str(ROOT / "config/config.yaml"), "--config", str(ixi / "own.yaml")]
    both = CliRunner().invoke(app, arguments)
    assert both.exit_code == 1
    assert "IXI" in both.output
    assert "none: the cohort's folder does not exist" in both.output
    alone = CliRunner().invoke(app, [*arguments, "--cohort", "IXI"])
    assert alone.exit_code == 0
    assert "0 files changed" in alone.output
