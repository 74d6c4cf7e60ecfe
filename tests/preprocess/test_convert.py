"""Conversion keeps every voxel where it was in the world, and names what is wrong with what it refuses."""

from __future__ import annotations

import gzip
import os
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import orientations
from small_scans import SHAPE, ZOOMS, lps, scan

from braing3n.errors import BrainG3NError, ExcludeVolume
from braing3n.preprocess.convert import affine_of_axes, read_image, to_lps
from braing3n.preprocess.worker import explain

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
def test_values_and_types(converted, stored, expected):
    data = scan() % 200 - (100 if stored in ("i2", ">i2", "f4") else 0)  # below zero too
    image, qc, _ = converted(nib.Nifti1Image(data.astype(stored), lps()))
    assert image.get_data_dtype() == expected
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert np.allclose(image.affine, lps(), atol=1e-4)
    assert qc["voxel_max_mm"] == pytest.approx(6)
    assert qc["extent_min_mm"] == pytest.approx(110)
    assert qc["convert_max"] == data.max()


def test_values_beyond_int16_and_scaled_values_become_float(converted):
    big = scan().astype(np.int32) * 100
    image, _, _ = converted(nib.Nifti1Image(big, lps()))
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj), big)
    scaled = nib.Nifti1Image(scan(), lps())
    scaled.header.set_slope_inter(300.5, -7)  # would overflow int16
    image, _, _ = converted(scaled, "scaled.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert np.allclose(np.asarray(image.dataobj), scan() * 300.5 - 7, rtol=1e-6)


def test_equal_scans_give_equal_bytes_and_a_clean_header(converted, tmp_path):
    image = nib.Nifti1Image(scan(), lps())
    image.header["descrip"] = b"Doe Jane 1961"
    image.header["aux_file"] = b"MRN778899"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe"))
    converted(image, "a.nii.gz")
    converted(image, "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert b"Doe" not in content
    assert b"MRN" not in content


def test_one_frame_is_squeezed_and_many_are_refused(converted):
    image, _, _ = converted(nib.Nifti1Image(scan()[..., None, None], lps()))
    assert image.shape == SHAPE
    with pytest.raises(BrainG3NError, match=r"not one 3D image.*3 frames"):
        converted(nib.Nifti1Image(np.stack([scan()] * 3, axis=-1), lps()), "b.nii.gz")
    with pytest.raises(BrainG3NError, match="not one 3D image"):
        converted(nib.Nifti1Image(scan()[..., 0], lps()), "c.nii.gz")


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
def test_bad_content_is_refused_with_its_reason(converted, image, reason):
    with pytest.raises(BrainG3NError, match=reason):
        converted(image)


def test_a_small_shear_is_taken_out(converted):
    image, _, _ = converted(with_column([0.02, -5, 0]))
    linear = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    assert np.allclose(linear.T @ linear, np.eye(3), atol=1e-6)


def test_slabs_and_thick_slices_are_excluded(converted):
    with pytest.raises(ExcludeVolume, match="slab: field of view 132 x 120 x 44 mm"):
        converted(nib.Nifti1Image(scan(shape=(22, 24, 8)), lps((22, 24, 8))), "a.nii.gz")
    with pytest.raises(ExcludeVolume, match=r"thick slices: voxels of 6.00 x 5.00 x 8.00 mm"):
        converted(nib.Nifti1Image(scan(), lps(zooms=(6, 5, 8))), "b.nii.gz")


def test_damaged_files(converted, tmp_path):
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
            converted(tmp_path / name, f"out-{name}.nii.gz")
        assert not (tmp_path / f"out-{name}.nii.gz").exists()
    with pytest.raises(BrainG3NError, match="is not a file"):
        converted(tmp_path, "folder.nii.gz")


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
def test_analyze_takes_its_axes_from_the_cohort(converted, tmp_path, ending):
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
        converted(source, "a.nii.gz", source_format="analyze")
    image, _, _ = converted(source, "b.nii.gz", source_format="analyze", entry_axes="ASL")
    # the first stored axis runs to the front, the second up, the third to the left
    assert image.shape == (SHAPE[2], SHAPE[0], SHAPE[1])
    assert np.array_equal(np.asarray(image.dataobj), data.transpose(2, 0, 1)[:, ::-1])
    assert np.allclose(image.header.get_zooms(), (ZOOMS[2], ZOOMS[0], ZOOMS[1]))


def test_mgz(converted, tmp_path):
    data = scan()
    nib.save(nib.MGHImage(data.astype(np.float32), lps()), tmp_path / "orig.mgz")
    image, _, _ = converted(tmp_path / "orig.mgz", source_format="mgz")
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert np.allclose(image.affine, lps(), atol=1e-4)
