"""DICOM series: voxels in their place, what is no stack refused with its reason, nobody's name in any output."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from small_scans import SHAPE, ZOOMS, lps, scan

from braing3n.errors import BrainG3NError
from braing3n.files import short_hash
from braing3n.phantom.dicom import write_series
from braing3n.preprocess.convert import affine_of_axes, to_lps
from braing3n.preprocess.steps import get_step

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


def series(folder: Path, prefix: str, data: np.ndarray, affine: np.ndarray, **header) -> None:
    write_series(folder, data, affine, {**PATIENT, "file_prefix": prefix, "StudyID": "1", "SeriesNumber": 3, **header})


def test_a_dicom_series_keeps_its_voxels_and_its_place(converted, tmp_path):
    data, codes = scan(), "PSR"  # sagittal slices
    affine = affine_of_axes(codes, SHAPE, np.array(ZOOMS))
    affine[:3, 3] += [3, -8, 11]
    series(tmp_path / "dicom", "a", data, affine, MagneticFieldStrength=3, EchoTime=3.5, Manufacturer="SIEMENS")
    image, _, parameters = converted(tmp_path / "dicom", source_format="dicom")
    expected, expected_affine = to_lps(data, affine)
    assert np.allclose(image.affine, expected_affine, atol=1e-3)
    assert np.array_equal(np.asarray(image.dataobj), expected)
    assert parameters["MagneticFieldStrength"] == 3
    assert parameters["EchoTime"] == pytest.approx(0.0035)


def test_mixed_and_gapped_series_are_refused_and_a_named_one_is_found(converted, tmp_path):
    mixed = tmp_path / "mixed"
    series(mixed, "a", scan(1), lps())
    series(mixed, "b", scan(2), lps(), SeriesNumber=4)
    with pytest.raises(BrainG3NError, match=r"several series.*found: 2.*split_series"):
        converted(mixed, "a.nii.gz", source_format="dicom")
    import pydicom

    uid = pydicom.dcmread(mixed / "b_001_1.dcm").SeriesInstanceUID
    image, _, _ = converted(mixed, "b.nii.gz", source_format="dicom", series=short_hash(uid))
    assert np.array_equal(np.asarray(image.dataobj), scan(2))
    with pytest.raises(BrainG3NError, match="holds no file of the series"):
        converted(mixed, "c.nii.gz", source_format="dicom", series="0" * 16)

    gapped = tmp_path / "gapped"
    series(gapped, "a", scan(1), lps())
    (gapped / "a_009_1.dcm").unlink()
    with pytest.raises(BrainG3NError, match=r"not equally spaced; found: 5\.50 to 11\.00 mm apart"):
        converted(gapped, "d.nii.gz", source_format="dicom")


def test_an_enhanced_multi_frame_file(converted, tmp_path):
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
    image, _, _ = converted(tmp_path / "enhanced", source_format="dicom")
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert np.allclose(image.affine, lps(), atol=1e-3)

    frames[7].PlanePositionSequence[0].ImagePositionPatient[2] += 2
    whole.save_as(tmp_path / "enhanced" / "all.dcm")
    with pytest.raises(BrainG3NError, match="not equally spaced"):
        converted(tmp_path / "enhanced", "b.nii.gz", source_format="dicom")


def test_a_tilted_gantry_is_refused(converted, tmp_path):
    import pydicom

    series(tmp_path / "tilted", "a", scan(1), lps())
    for number, path in enumerate(sorted((tmp_path / "tilted").iterdir())):
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, float(y) + number, z]
        dataset.save_as(path)
    with pytest.raises(BrainG3NError, match="tilted gantry"):
        converted(tmp_path / "tilted", source_format="dicom")


def test_dicom_series_that_are_no_stack(converted, tmp_path):
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
            converted(spoiled(change.__name__, change), f"{change.__name__}.nii.gz", source_format="dicom")

    broken = tmp_path / "broken"
    series(broken, "a", scan(1), lps())
    (broken / "a_003_1.dcm").write_bytes(b"DICM? no")
    with pytest.raises(BrainG3NError, match="file 3 of the folder cannot be read"):
        converted(broken, "broken.nii.gz", source_format="dicom")
    (tmp_path / "none").mkdir()
    with pytest.raises(BrainG3NError, match="holds no DICOM file"):
        converted(tmp_path / "none", "e.nii.gz", source_format="dicom")


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
