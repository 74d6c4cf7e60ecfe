"""Conversion keeps every voxel where it was in the world, and names what is wrong with what it refuses."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import orientations

from braing3n.config.data import ConvertSettings
from braing3n.errors import BrainG3NError, ExcludeVolume
from braing3n.files import short_hash
from braing3n.phantom.dicom import write_series
from braing3n.preprocess.convert import affine_of_axes, convert, read_image, to_lps
from braing3n.preprocess.steps import get_step
from braing3n.preprocess.worker import explain

SHAPE = (22, 24, 20)
ZOOMS = (6.0, 5.0, 5.5)
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "MRN778899", "PatientBirthDate": "19610203"}
PRIVATE = {
    **PATIENT,
    "PatientAddress": "12 Elm Street",
    "OtherPatientIDs": "SSN123456789",
    "InstitutionName": "Saint Elsewhere",
    "ReferringPhysicianName": "House^Gregory",
    "OperatorsName": "Operator^One",
    "DeviceSerialNumber": "SERIAL4242",
    "StudyDate": "20110907",
    "AcquisitionDate": "20110907",
    "AcquisitionTime": "101112.5",
    "AccessionNumber": "ACC554433",
    "ImageComments": "seen with Jane Doe",
    "PatientComments": "afraid of clowns",
    "SeriesDescription": "MPRAGE for Doe",
    "ProtocolName": "Doe protocol",
    "StudyDescription": "Doe study",
}


def lps(shape=SHAPE, zooms=ZOOMS) -> np.ndarray:
    return affine_of_axes("LPS", shape, np.array(zooms))


def scan(seed: int = 0, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)


@pytest.fixture
def run(tmp_path):
    """Convert a file written by `save`, or given; returns the converted image, the QC numbers and the parameters."""

    def run_(source, out_name: str = "out.nii.gz", **options):
        if not isinstance(source, Path):
            source, path = tmp_path / "in.nii.gz", source
            nib.save(path, source)
        scratch = tmp_path / f"scratch-{out_name}"
        scratch.mkdir()
        out = tmp_path / out_name
        options = {"source_format": "nifti", "settings": ConvertSettings(), **options}
        qc, parameters = convert(source, out, scratch, **options)
        return nib.load(out), qc, parameters

    return run_


CODES = [a + b + c for a in "LR" for b in "AP" for c in "IS"]
CODES = [
    "".join(p) for code in CODES for p in [code, code[1] + code[0] + code[2], code[2] + code[0] + code[1], code[::-1]]
]


@settings(max_examples=60, deadline=None)
@given(codes=st.sampled_from(CODES), angle=st.floats(-0.4, 0.4), axis=st.integers(0, 2))
def test_lps_order_moves_no_voxel_in_the_world(codes, angle, axis):
    data = scan(shape=(5, 6, 7))
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.roll(np.roll([[1, 0, 0], [0, c, -s], [0, s, c]], axis, 0), axis, 1)
    affine = nib.affines.from_matvec(rotation) @ affine_of_axes(codes, data.shape, np.array([1.0, 2.0, 3.0]))
    assert orientations.aff2axcodes(affine_of_axes(codes, data.shape, np.ones(3))) == tuple(codes)
    moved, moved_affine = to_lps(data, affine)
    assert orientations.aff2axcodes(moved_affine) == ("L", "P", "S")
    index = np.argwhere(np.ones(data.shape, bool))
    world = nib.affines.apply_affine(affine, index)
    there = nib.affines.apply_affine(np.linalg.inv(moved_affine), world)
    assert np.abs(there - np.rint(there)).max() < 1e-6
    assert np.array_equal(moved[tuple(np.rint(there).astype(int).T)], data[tuple(index.T)])


@pytest.mark.parametrize(
    ("stored", "expected"),
    [("u1", "int16"), ("i2", "int16"), (">i2", "int16"), ("u2", "int16"), ("i4", "int16"), ("f4", "float32")],
)
def test_values_and_types(run, stored, expected):
    data = scan() % 200 - (100 if stored in ("i2", ">i2", "f4") else 0)  # below zero too
    image, qc, _ = run(nib.Nifti1Image(data.astype(stored), lps()))
    assert image.get_data_dtype() == expected
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert np.allclose(image.affine, lps(), atol=1e-4)
    assert qc["voxel_max_mm"] == pytest.approx(6)
    assert qc["extent_min_mm"] == pytest.approx(110)
    assert qc["convert_max"] == data.max()


def test_values_beyond_int16_and_scaled_values_become_float(run):
    big = scan().astype(np.int32) * 100
    image, _, _ = run(nib.Nifti1Image(big, lps()))
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj), big)
    scaled = nib.Nifti1Image(scan(), lps())
    scaled.header.set_slope_inter(300.5, -7)  # would overflow int16
    image, _, _ = run(scaled, "scaled.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert np.allclose(np.asarray(image.dataobj), scan() * 300.5 - 7, rtol=1e-6)


def test_equal_scans_give_equal_bytes_and_a_clean_header(run, tmp_path):
    image = nib.Nifti1Image(scan(), lps())
    image.header["descrip"] = b"Doe Jane 1961"
    image.header["aux_file"] = b"MRN778899"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe"))
    run(image, "a.nii.gz")
    run(image, "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert b"Doe" not in content
    assert b"MRN" not in content


def test_one_frame_is_squeezed_and_many_are_refused(run):
    image, _, _ = run(nib.Nifti1Image(scan()[..., None, None], lps()))
    assert image.shape == SHAPE
    with pytest.raises(BrainG3NError, match=r"not one 3D image.*3 frames"):
        run(nib.Nifti1Image(np.stack([scan()] * 3, axis=-1), lps()), "b.nii.gz")
    with pytest.raises(BrainG3NError, match="not one 3D image"):
        run(nib.Nifti1Image(scan()[..., 0], lps()), "c.nii.gz")


def with_value(value: float) -> np.ndarray:
    data = scan().astype(np.float32)
    data[3, 4, 5] = value
    return data


def with_column(column: list[float]) -> nib.Nifti1Image:
    """A scan whose sform has another second column; nibabel itself would refuse some of them."""
    affine = lps()
    affine[:3, 1] = column
    image = nib.Nifti1Image(scan(), None)
    image.header.set_sform(affine, 1)
    return image


RGB = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (nib.Nifti1Image(with_value(np.nan), lps()), "contains NaN values; found: 1 of 10560 voxels"),
        (nib.Nifti1Image(with_value(np.inf), lps()), "contains infinite values"),
        (nib.Nifti1Image(with_value(0).astype(np.float64) * 1e300, lps()), "contains infinite values"),
        (nib.Nifti1Image(np.full(SHAPE, 7, np.int16), lps()), "all voxels are equal; found: 7"),
        (nib.Nifti1Image(scan().astype(np.complex64), lps()), "voxels are complex64"),
        (nib.Nifti1Image(RGB, lps()), r"voxels are colour \(RGB\)"),
        (with_column([0, 0, 0]), "affine is degenerate"),
        (with_column([-6, 0, 0]), "affine is degenerate"),
        (with_column([1, -5, 0]), "affine is sheared"),
        (nib.Nifti1Image(scan(), None), "header carries no orientation"),
    ],
)
def test_bad_content_is_refused_with_its_reason(run, image, reason):
    with pytest.raises(BrainG3NError, match=reason):
        run(image)


def test_a_small_shear_is_taken_out(run):
    image, _, _ = run(with_column([0.02, -5, 0]))
    linear = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    assert np.allclose(linear.T @ linear, np.eye(3), atol=1e-6)


def test_slabs_and_thick_slices_are_excluded(run):
    with pytest.raises(ExcludeVolume, match="slab: field of view 132 x 120 x 44 mm"):
        run(nib.Nifti1Image(scan(shape=(22, 24, 8)), lps((22, 24, 8))), "a.nii.gz")
    with pytest.raises(ExcludeVolume, match=r"thick slices: voxels of 6.00 x 5.00 x 8.00 mm"):
        run(nib.Nifti1Image(scan(), lps(zooms=(6, 5, 8))), "b.nii.gz")


def test_damaged_files(run, tmp_path):
    whole = tmp_path / "whole.nii.gz"
    nib.save(nib.Nifti1Image(scan(), lps()), whole)
    content = whole.read_bytes()
    flipped = bytearray(content)
    flipped[-6] ^= 1  # in the checksum: every voxel can be read
    cases = {
        "empty.nii.gz": (b"", "file is empty"),
        "half.nii.gz": (content[: len(content) // 2], "damaged or cut short"),
        "tail.nii.gz": (content[:-4], "damaged or cut short"),
        "flipped.nii.gz": (bytes(flipped), "damaged or cut short"),
        "text.nii.gz": (b"not a gzip file at all", "damaged or cut short"),
        "plain.nii": (gzip.decompress(content)[:-100], "less data than its header says"),
        "header.nii": (gzip.decompress(content)[:200], "cannot|not an image"),
        "garbage.nii": (b"\x00" * 400, "not an image that can be read"),
    }
    for name, (bytes_, reason) in cases.items():
        (tmp_path / name).write_bytes(bytes_)
        with pytest.raises(BrainG3NError, match=reason):
            run(tmp_path / name, f"out-{name}.nii.gz")
        assert not (tmp_path / f"out-{name}.nii.gz").exists()
    with pytest.raises(BrainG3NError, match="is not a file"):
        run(tmp_path, "folder.nii.gz")


def test_what_may_not_be_read_says_so(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    nib.save(nib.Nifti1Image(scan(), lps()), locked / "scan.nii.gz")
    locked.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nothing is closed to root
    try:
        with pytest.raises(PermissionError) as caught:
            read_image(locked / "scan.nii.gz", tmp_path)
    finally:
        os.seteuid(user)
        locked.chmod(0o700)
    context = SimpleNamespace(results=tmp_path / "results", root=tmp_path)
    assert explain(caught.value, context).startswith("locked/scan.nii.gz: no right to read or write it; remedy:")


# ------------------------------------------------------------------------------------------------ other formats


@pytest.mark.parametrize("ending", [".hdr", ".hdr.gz"])
def test_analyze_takes_its_axes_from_the_cohort(run, tmp_path, ending):
    data = scan()
    image = nib.AnalyzeImage(data, None)
    image.header.set_zooms(ZOOMS)
    nib.save(image, tmp_path / "scan.img")
    source = tmp_path / "scan.hdr"
    if ending == ".hdr.gz":
        for path in (source, tmp_path / "scan.img"):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        source = tmp_path / "scan.hdr.gz"
    with pytest.raises(BrainG3NError, match="header carries no orientation"):
        run(source, "a.nii.gz", source_format="analyze")
    image, _, _ = run(source, "b.nii.gz", source_format="analyze", entry_axes="ASL")
    # the first stored axis runs to the front, the second up, the third to the left
    assert image.shape == (SHAPE[2], SHAPE[0], SHAPE[1])
    assert np.array_equal(np.asarray(image.dataobj), data.transpose(2, 0, 1)[:, ::-1])
    assert np.allclose(image.header.get_zooms(), (ZOOMS[2], ZOOMS[0], ZOOMS[1]))


def test_mgz(run, tmp_path):
    data = scan()
    nib.save(nib.MGHImage(data.astype(np.float32), lps()), tmp_path / "orig.mgz")
    image, _, _ = run(tmp_path / "orig.mgz", source_format="mgz")
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert np.allclose(image.affine, lps(), atol=1e-4)


def series(folder: Path, prefix: str, data: np.ndarray, affine: np.ndarray, **header) -> None:
    write_series(folder, data, affine, {**PATIENT, "file_prefix": prefix, "StudyID": "1", "SeriesNumber": 3, **header})


def test_a_dicom_series_keeps_its_voxels_and_its_place(run, tmp_path):
    data, codes = scan(), "PSR"  # sagittal slices
    affine = affine_of_axes(codes, SHAPE, np.array(ZOOMS))
    affine[:3, 3] += [3, -8, 11]
    series(tmp_path / "dicom", "a", data, affine, MagneticFieldStrength=3, EchoTime=3.5, Manufacturer="SIEMENS")
    image, _, parameters = run(tmp_path / "dicom", source_format="dicom")
    expected, expected_affine = to_lps(data, affine)
    assert np.allclose(image.affine, expected_affine, atol=1e-3)
    assert np.array_equal(np.asarray(image.dataobj), expected)
    assert parameters["MagneticFieldStrength"] == 3
    assert parameters["EchoTime"] == pytest.approx(0.0035)


def test_mixed_and_gapped_series_are_refused_and_a_named_one_is_found(run, tmp_path):
    mixed = tmp_path / "mixed"
    series(mixed, "a", scan(1), lps())
    series(mixed, "b", scan(2), lps(), SeriesNumber=4)
    with pytest.raises(BrainG3NError, match=r"several series.*found: 2.*split_series"):
        run(mixed, "a.nii.gz", source_format="dicom")
    import pydicom

    uid = pydicom.dcmread(mixed / "b_001_1.dcm").SeriesInstanceUID
    image, _, _ = run(mixed, "b.nii.gz", source_format="dicom", series=short_hash(uid))
    assert np.array_equal(np.asarray(image.dataobj), scan(2))
    with pytest.raises(BrainG3NError, match="holds no file of the series"):
        run(mixed, "c.nii.gz", source_format="dicom", series="0" * 16)

    gapped = tmp_path / "gapped"
    series(gapped, "a", scan(1), lps())
    (gapped / "a_009_1.dcm").unlink()
    with pytest.raises(BrainG3NError, match=r"not equally spaced; found: 5\.50 to 11\.00 mm apart"):
        run(gapped, "d.nii.gz", source_format="dicom")


def test_an_enhanced_multi_frame_file(run, tmp_path):
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import EnhancedMRImageStorage

    data = scan(1)
    series(tmp_path / "classic", "a", data, lps())
    slices = [pydicom.dcmread(path) for path in sorted((tmp_path / "classic").iterdir())]

    def item(**content) -> Dataset:
        dataset = Dataset()
        for name, value in content.items():
            setattr(dataset, name, value)
        return dataset

    def one(**content) -> Sequence:
        return Sequence([item(**content)])

    whole = pydicom.dcmread(tmp_path / "classic" / "a_001_1.dcm")
    frames = [
        item(
            PlanePositionSequence=one(ImagePositionPatient=slice_.ImagePositionPatient),
            FrameContentSequence=one(
                StackID="1", InStackPositionNumber=number + 1, DimensionIndexValues=[1, number + 1]
            ),
        )
        for number, slice_ in enumerate(slices)
    ]
    shared = item(
        PlaneOrientationSequence=one(ImageOrientationPatient=whole.ImageOrientationPatient),
        PixelMeasuresSequence=one(PixelSpacing=whole.PixelSpacing, SliceThickness=whole.SliceThickness),
    )
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(whole, name)
    whole.file_meta.MediaStorageSOPClassUID = whole.SOPClassUID = EnhancedMRImageStorage
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(slice_.PixelData for slice_ in slices)
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
    (tmp_path / "enhanced").mkdir()
    whole.save_as(tmp_path / "enhanced" / "all.dcm")
    image, _, _ = run(tmp_path / "enhanced", source_format="dicom")
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert np.allclose(image.affine, lps(), atol=1e-3)

    frames[7].PlanePositionSequence[0].ImagePositionPatient[2] += 2
    whole.save_as(tmp_path / "enhanced" / "all.dcm")
    with pytest.raises(BrainG3NError, match="not equally spaced"):
        run(tmp_path / "enhanced", "b.nii.gz", source_format="dicom")


def test_a_tilted_gantry_is_refused(run, tmp_path):
    import pydicom

    series(tmp_path / "tilted", "a", scan(1), lps())
    for number, path in enumerate(sorted((tmp_path / "tilted").iterdir())):
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, float(y) + number, z]
        dataset.save_as(path)
    with pytest.raises(BrainG3NError, match="tilted gantry"):
        run(tmp_path / "tilted", source_format="dicom")


def test_dicom_series_that_are_no_stack(run, tmp_path):
    import pydicom

    def spoiled(name: str, change) -> Path:
        series(tmp_path / name, "a", scan(1), lps())
        for number, path in enumerate(sorted((tmp_path / name).iterdir())):
            dataset = pydicom.dcmread(path)
            change(number, dataset)
            dataset.save_as(path)
        return tmp_path / name

    def tilt(number, dataset):
        if number % 7 == 0:
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    def repeat(number, dataset):
        dataset.ImagePositionPatient[2] = 5.5 * (number // 2)

    def mosaic(number, dataset):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]

    def lose(number, dataset):
        del dataset.ImagePositionPatient

    reasons = {"not parallel": tilt, "share a position": repeat, "mosaic": mosaic, "lack their position": lose}
    for reason, change in reasons.items():
        with pytest.raises(BrainG3NError, match=reason):
            run(spoiled(change.__name__, change), f"{change.__name__}.nii.gz", source_format="dicom")

    broken = tmp_path / "broken"
    series(broken, "a", scan(1), lps())
    (broken / "a_003_1.dcm").write_bytes(b"DICM? no")
    with pytest.raises(BrainG3NError, match="file 3 of the folder cannot be read"):
        run(broken, "broken.nii.gz", source_format="dicom")
    (tmp_path / "none").mkdir()
    with pytest.raises(BrainG3NError, match="holds no DICOM file"):
        run(tmp_path / "none", "e.nii.gz", source_format="dicom")


def test_no_patient_identifying_field_reaches_any_output(cohort, inline):
    data, affine = scan(), lps()
    write_series(cohort.root / "S1/good", data, affine, {**PRIVATE, "file_prefix": "a", "StudyID": "STUDY77"})
    write_series(cohort.root / "S1/bad", data, affine, {**PRIVATE, "file_prefix": "a", "StudyID": "STUDY77"})
    next((cohort.root / "S1/bad").glob("a_007*")).unlink()
    for name in ("good", "bad"):
        cohort.add(f"S1/{name}", source_format="dicom", subject=name)
    table = cohort.run(get_step("convert"))
    assert table["status"].tolist() == ["ok", "failed"]

    secrets = {
        part for value in (*PRIVATE.values(), "STUDY77") for part in value.replace("^", " ").split() if len(part) > 3
    }
    secrets -= {"with", "from", "afraid", "seen", "study", "protocol", "MPRAGE", "Street", "Operator"}
    outputs = [path for path in cohort.results.rglob("*") if path.is_file()]
    assert any(path.name.endswith("desc-converted_T1w.json") for path in outputs)
    for path in outputs:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        for secret in secrets:
            assert secret.lower() not in str(path.relative_to(cohort.results)).lower()
            assert secret.encode() not in content, f"{secret} in {path}"
    said = " ".join(cohort.read("convert")["reason"])
    assert not any(secret in said for secret in secrets)
