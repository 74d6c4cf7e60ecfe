"""Phantom cohorts on disk: the cohorts' layouts and codings, the truth beside them, reruns."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest

from braing3n.config.data import PhantomSettings
from braing3n.errors import BrainG3NError
from braing3n.files import read_parquet, sha256_of
from braing3n.geometry import SRI24_AFFINE, SRI24_SHAPE
from braing3n.phantom.adni import plan_adni
from braing3n.phantom.cohorts import make_phantoms
from braing3n.phantom.ixi import plan_ixi
from braing3n.phantom.simulate import simulate
from braing3n.phantom.truth import BRAIN_CENTRE
from braing3n.phantom.upenn import plan_upenn
from braing3n.preprocess.atlas import load_atlas

IXI_FILE = re.compile(r"^(?P<subject>IXI\d{3})-(?P<site>Guys|HH|IOP)-(?P<scan>\d{4})-(?P<mod>T1|T2)\.nii\.gz$")
ADNI_FILE = re.compile(
    r"^(?:.*/)?ADNI/(?P<subject>\d{3}_S_\d{4,5})/(?P<series>[^/]+)/(?P<date>\d{4}-\d{2}-\d{2})_\d{2}_\d{2}_\d{2}\.\d"
    r"/(?P<image>[SI]\d+)/(?P<file>[^/]+\.dcm)$"
)
UPENN_FILE = re.compile(
    r"images_structural/(?P<subject>UPENN-GBM-\d{5})_(?P<session>11|21)/(?P=subject)_(?P=session)_(T1|T1GD|T2|FLAIR)\.nii\.gz$"
)
SETTINGS = {"voxel_mm": 3.1, "ixi": 2, "adni": 1, "upenn": 1, "seed": 7}


@pytest.fixture(scope="module")
def made(anatomy, atlas_dir, tmp_path_factory) -> Path:
    """Root of small cohorts, with true masks and bias fields."""
    del anatomy  # derived before the workers start
    root = tmp_path_factory.mktemp("demo") / "raw"
    table = make_phantoms(atlas_dir, PhantomSettings(root=root, **SETTINGS), workers=1, save_truth_images=True)
    assert table == root.parent / "truth" / "truth.parquet"
    return root


@pytest.fixture(scope="module")
def truth(made) -> pd.DataFrame:
    return read_parquet(made.parent / "truth" / "truth.parquet")


def test_ixi_layout_and_orientation(made):
    files = sorted(path.name for path in (made / "IXI").glob("*.nii.gz"))
    parts = [IXI_FILE.match(name) for name in files]
    assert all(parts)
    assert sorted(part["mod"] for part in parts) == ["T1", "T1", "T2"]  # the last person has no T2
    t1, t2 = (nib.load(made / "IXI" / next(f for f in files if f.endswith(f"-{m}.nii.gz"))) for m in ("T1", "T2"))
    assert nib.aff2axcodes(t1.affine) == ("P", "S", "R")
    assert np.allclose(t1.header.get_zooms(), 3.1)
    assert np.allclose(t2.header.get_zooms(), (3.1, 3.1, 4 / 3 * 3.1))
    assert t1.shape != t2.shape
    assert t1.get_data_dtype() == np.int16


def test_ixi_table_is_legacy_xls_with_its_traps(made, truth):
    content = (made / "IXI" / "IXI.xls").read_bytes()
    assert content[:4] == b"\xd0\xcf\x11\xe0"  # compound document, not a zip
    table = pd.read_excel(io.BytesIO(content), engine="calamine")
    assert list(table.columns[:2]) == ["IXI_ID", "SEX_ID (1=m, 2=f)"]
    assert len(table) == 3
    assert table["IXI_ID"].duplicated().sum() == 1
    assert table["AGE"].isna().sum() == 1
    known = table.dropna(subset=["AGE"]).set_index("IXI_ID")
    for row in truth[truth.cohort == "IXI"].itertuples():
        entry = known.loc[int(row.subject[3:])]
        assert entry["AGE"] == pytest.approx(row.age)
        assert {1: "M", 2: "F"}[entry["SEX_ID (1=m, 2=f)"]] == row.sex
        born, seen = (pd.Timestamp(entry[name]).date() for name in ("DOB", "STUDY_DATE"))
        assert (seen - born).days / 365.25 == pytest.approx(row.age, abs=0.01)


def test_t2_moved_against_t1(truth):
    ixi = truth[(truth.cohort == "IXI") & (truth.subject == "IXI002")].set_index("modality")
    t1, t2 = (np.reshape(ixi.loc[m, "affine"], (4, 4)) for m in ("T1", "T2"))
    motion = np.linalg.inv(t1) @ t2
    assert np.allclose(motion[:3, :3].T @ motion[:3, :3], np.eye(3), atol=1e-6)  # rigid
    assert 0.1 < np.linalg.norm(motion[:3, 3]) < 8


def test_adni_layout_and_header(made, truth):
    root = made / "ADNI"
    files = [path.relative_to(root).as_posix() for path in root.rglob("*.dcm")]
    parts = [ADNI_FILE.match(file) for file in files]
    assert all(parts)
    assert {part["series"] for part in parts} == {"MPRAGE"}
    folders = {file.rsplit("/", 1)[0] for file in files}
    assert folders == set(truth[truth.cohort == "ADNI"].source_path)
    assert len(folders) == 3  # visits
    header = pydicom.dcmread(root / files[0], stop_before_pixels=True)
    assert header.SeriesDescription == "MPRAGE"
    assert header.Manufacturer == "SIEMENS"
    assert header.MagneticFieldStrength == 3.0
    assert str(header.PatientName)  # there on purpose: it must not get out
    orientation = np.array(header.ImageOrientationPatient, float)
    assert abs(orientation[1]) > 0.98  # columns run along A-P, rows along S-I: sagittal
    assert abs(orientation[5]) > 0.98
    uids = {pydicom.dcmread(root / file, stop_before_pixels=True).SOPInstanceUID for file in files}
    assert len(uids) == len(files)


def test_dcm2niix_brings_back_truth(made, anatomy, tmp_path):
    """Converted affine and intensities equal what was simulated, up to the rounding of DICOM's decimal strings."""
    planned = plan_adni(SETTINGS["adni"], SETTINGS["voxel_mm"], SETTINGS["seed"]).scans[0]
    tool = Path(sys.executable).parent / "dcm2niix"
    subprocess.run(
        [tool, "-z", "n", "-f", "scan", "-o", tmp_path, made / "ADNI" / planned.source_path],
        check=True,
        capture_output=True,
    )
    converted = nib.as_closest_canonical(nib.load(tmp_path / "scan.nii"))
    result = simulate(anatomy, planned.subject, planned.scan, planned.grid)
    expected = nib.as_closest_canonical(nib.Nifti1Image(np.rint(result.volume), planned.grid.affine))
    assert np.allclose(converted.affine, expected.affine, atol=1e-3)
    assert np.array_equal(np.asarray(converted.dataobj), expected.get_fdata())
    sidecar = json.loads((tmp_path / "scan.json").read_text())
    assert sidecar["SeriesDescription"] == "MPRAGE"
    assert sidecar["MagneticFieldStrength"] == 3


def test_adni_tables_agree_with_truth():
    plan = plan_adni(5, 4.0, 2025)
    tables = {name.split("_")[0]: pd.read_csv(io.BytesIO(content)) for name, content in plan.tables.items()}
    assert set(tables) == {"PTDEMOG", "DXSUM", "MMSE", "CDR", "MOCA", "GDSCALE", "APOERES"}
    truth = pd.DataFrame([scan.known for scan in plan.scans])
    assert set(truth.diagnosis) == {"HC", "MCI", "AD"}
    assert (truth.groupby("subject").diagnosis.nunique() > 1).any()  # one converts
    assert set(truth.groupby("subject").size()) == {2, 3}
    for subject, rows in truth.groupby("subject"):
        ages = rows.age.sort_values()
        assert (ages.diff().dropna().between(0.9, 3.2)).all()
        demography = tables["PTDEMOG"].set_index("PTID").loc[subject]
        month, year = demography.PTDOB.split("/")
        date = dt.datetime.strptime(rows.iloc[0].session, "%Y%m%d")
        assert (date - dt.datetime(int(year), int(month), 15)).days / 365.25 == pytest.approx(
            rows.iloc[0].age, abs=0.01
        )
        assert {1: "M", 2: "F"}[demography.PTGENDER] == rows.iloc[0].sex
        visits = tables["DXSUM"].query("PTID == @subject").sort_values("EXAMDATE")
        assert [{1: "HC", 2: "MCI", 3: "AD"}[code] for code in visits.DIAGNOSIS] == list(rows.diagnosis)
    assert (tables["MMSE"].MMSCORE == -4).sum() == 1  # missing, in ADNI's code
    assert tables["MMSE"].MMSCORE.drop(tables["MMSE"].index[tables["MMSE"].MMSCORE == -4]).between(0, 30).all()
    assert (tables["PTDEMOG"].PTEDUCAT == -4).sum() == 1
    assert set(tables["CDR"].CDGLOBAL) <= {0.0, 0.5, 1.0}
    assert tables["APOERES"][["APGEN1", "APGEN2"]].isin([2, 3, 4]).all(axis=None)


def test_visits_age_and_disease_progresses():
    scans = plan_adni(5, 4.0, 2025).scans
    for subject in {scan.known["subject"] for scan in scans}:
        visits = [scan for scan in scans if scan.known["subject"] == subject]
        for earlier, later in itertools.pairwise(visits):
            assert later.subject.ventricle_mm > earlier.subject.ventricle_mm
            assert later.subject.hippocampal_atrophy > earlier.subject.hippocampal_atrophy
            assert later.subject.deformation_seed == earlier.subject.deformation_seed
            assert not np.allclose(later.subject.affine, earlier.subject.affine)  # lies differently each time


def test_upenn_is_stripped_on_one_grid_and_not_quite_in_sri24(made, truth):
    root = made / "UPENN-GBM"
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.nii.gz"))
    assert len(files) == 4
    assert all(UPENN_FILE.search(file) for file in files)
    images = [nib.load(root / file) for file in files]
    assert all(image.shape == SRI24_SHAPE and np.allclose(image.affine, SRI24_AFFINE) for image in images)
    foreground = [np.asarray(image.dataobj) > 0 for image in images]
    assert all(0.1 < part.mean() < 0.25 for part in foreground)  # no skull
    rows = truth[truth.cohort == "UPENN-GBM"]
    matrices = np.stack(rows.affine.to_list()).reshape(-1, 4, 4)
    assert np.ptp(matrices, axis=0).max() == 0  # shared
    moved = nib.affines.apply_affine(np.linalg.inv(matrices[0]), BRAIN_CENTRE) - BRAIN_CENTRE
    assert 3 < np.linalg.norm(moved) < 12
    assert (rows.tumour_radius_mm > 5).all()


def test_upenn_table_has_its_codes():
    plan = plan_upenn(4, 1.5, 2025)
    table = pd.read_csv(io.BytesIO(plan.tables["UPENN-GBM_clinical_info_v2.1.csv"]), keep_default_na=False)
    assert table.columns[0] == "ID"
    assert table.ID.str.fullmatch(r"UPENN-GBM-\d{5}_11").all()
    assert set(table.IDH1) == {"Wildtype", "Mutated", "NOS/NEC"}
    assert set(table.MGMT) == {"Methylated", "Not Available", "Unmethylated", "Indeterminate"}
    assert "Not Available" in set(table.KPS)
    assert set(table.Gender) == {"M", "F"}
    mutant = {scan.known["subject"] for scan in plan.scans if scan.known["idh1"] == "mutant"}
    assert all((s.subject.tumour.enhancement < 0.5) == (s.known["subject"] in mutant) for s in plan.scans)


def test_sri24_is_the_atlas_unchanged(made, atlas_dir):
    copy = nib.load(made / "SRI24" / "sri24_T1.nii.gz")
    assert np.array_equal(np.asarray(copy.dataobj), load_atlas(atlas_dir).head)


def test_truth_is_complete_and_apart(made, truth):
    assert len(truth) == 3 + 3 + 4 + 1
    assert not truth.duplicated(["cohort", "source_path"]).any()
    assert all((made / row.cohort / row.source_path).exists() for row in truth.itertuples())
    assert truth.affine.map(len).eq(16).all()
    assert truth.ventricle_ml.between(8, 70).all()
    assert truth.brain_ml.between(900, 2200).all()
    assert not list(made.rglob("truth*"))
    for row in truth[truth.cohort != "SRI24"].itertuples():
        mask = nib.load(made.parent / "truth" / row.mask_path)
        assert np.asarray(mask.dataobj).sum() * np.prod(mask.header.get_zooms()) / 1000 == pytest.approx(row.brain_ml)
        bias = nib.load(made.parent / "truth" / row.bias_path).get_fdata()[np.asarray(mask.dataobj) > 0]
        assert np.ptp(bias) == pytest.approx(row.bias, rel=0.01)


def test_ages_and_sexes_are_spread():
    known = pd.DataFrame([scan.known for scan in plan_ixi(12, 4.0, 1).scans]).drop_duplicates("subject")
    assert known.age.min() < 30
    assert known.age.max() > 75
    assert (known.sex == "F").sum() == 6
    assert known.groupby("sex").age.mean().diff().abs().max() < 25


def test_same_settings_give_same_bytes(made, atlas_dir, tmp_path):
    root = tmp_path / "again" / "raw"
    settings = PhantomSettings(root=root, **{**SETTINGS, "upenn": 0})  # cohorts do not depend on each other
    make_phantoms(atlas_dir, settings, workers=2)
    for cohort in ("IXI", "ADNI", "SRI24"):
        assert sha256_of(root / cohort) == sha256_of(made / cohort)


def _only_sri24(root: Path, **changes) -> PhantomSettings:
    return PhantomSettings(root=root, **{"ixi": 0, "adni": 0, "upenn": 0, **changes})


def test_rerun_keeps_what_is_there_even_if_altered(atlas_dir, tmp_path):
    settings = _only_sri24(tmp_path / "raw")
    make_phantoms(atlas_dir, settings)
    file = settings.root / "SRI24" / "sri24_T1.nii.gz"
    file.write_bytes(b"truncated on purpose")
    make_phantoms(atlas_dir, settings)
    assert file.read_bytes() == b"truncated on purpose"


def test_other_settings_replace_it(atlas_dir, tmp_path):
    make_phantoms(atlas_dir, _only_sri24(tmp_path / "raw"))
    stale = tmp_path / "raw" / "SRI24" / "stale.nii.gz"
    stale.write_bytes(b"of an earlier run")
    make_phantoms(atlas_dir, _only_sri24(tmp_path / "raw", seed=1))
    assert not stale.exists()
    assert (stale.parent / "sri24_T1.nii.gz").exists()


def test_interrupted_run_is_begun_again(atlas_dir, tmp_path):
    settings = _only_sri24(tmp_path / "raw")
    make_phantoms(atlas_dir, settings)
    manifest = settings.root / "phantom.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"complete": False}))
    (settings.root / "SRI24" / "half.nii.gz").write_bytes(b"half")
    make_phantoms(atlas_dir, settings)
    assert os.listdir(settings.root / "SRI24") == ["sri24_T1.nii.gz"]


def test_real_data_is_never_replaced(atlas_dir, tmp_path):
    own = tmp_path / "raw" / "SRI24" / "mine.nii.gz"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"a real scan")
    with pytest.raises(BrainG3NError, match="not made by"):
        make_phantoms(atlas_dir, _only_sri24(tmp_path / "raw"))
    assert own.read_bytes() == b"a real scan"
