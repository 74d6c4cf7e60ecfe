"""What is found under a root: links, pairs, series with and without file endings, headers."""

import gzip
import os

import nibabel as nib
import numpy as np
import pydicom
import pytest

from braing3n.cohorts.candidates import check_headers, match_all
from braing3n.cohorts.headers import DICOM_TAGS, HeaderError, content_sample, read_header, split_series
from braing3n.cohorts.image_models import ImagePattern
from braing3n.cohorts.walk import Found, walk
from braing3n.errors import BrainG3NError
from braing3n.phantom.layouts.tree import Tree


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def found(tree, path):
    return next(item for item in walk(tree.root) if item.path == path)


def test_entries_are_files_series_and_pairs(tree):
    tree.nifti("a/x.nii.gz")
    tree.dicom("b/series", n_slices=3)
    tree.analyze("c/y")
    tree.text("table.csv", [["a", 1]])
    tree.bytes(".DS_Store", b"")
    kinds = {item.path: (item.kind, item.n_files) for item in walk(tree.root)}
    assert kinds == {
        "a/x.nii.gz": ("nifti", 1),
        "b/series": ("dicom", 3),
        "c/y.hdr": ("analyze", 2),
        "table.csv": ("other", 1),
        ".DS_Store": ("hidden", 1),
    }


def test_sizes_add_up(tree):
    tree.dicom("series", n_slices=3)
    tree.analyze("y")
    files = [p.stat().st_size for p in tree.root.rglob("*") if p.is_file()]
    assert sum(item.n_bytes for item in walk(tree.root)) == sum(files)


def test_half_a_pair_is_complained_about(tree):
    tree.bytes("y.img", b"voxels")
    assert "other half" in found(tree, "y.img").complaint


def test_links_to_folders_are_followed_once(tree):
    tree.nifti("real/x.nii.gz")
    os.symlink(tree.root / "real", tree.root / "link")
    os.symlink(tree.root, tree.root / "real/loop")
    assert len(walk(tree.root)) == 1


def test_a_link_to_nowhere_is_a_failure(tree):
    os.symlink("/nowhere/x.nii.gz", tree.root / "x.nii.gz")
    assert found(tree, "x.nii.gz").kind == "broken"


def test_a_folder_that_may_not_be_read_is_a_failure_and_the_rest_is_found(tree, monkeypatch):
    """By a stand-in for the system's refusal, which does not hold for root."""
    (tree.root / "closed").mkdir()
    (tree.root / "open.nii.gz").write_bytes(b"")
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    closed = found(tree, "closed")
    assert closed.kind == "broken"
    assert "chmod" in closed.complaint
    assert found(tree, "open.nii.gz").kind == "nifti"
    with pytest.raises(BrainG3NError, match="may not be read"):
        walk(tree.root / "closed")


def test_slices_without_a_file_ending(tree):
    tree.dicom("series", n_slices=2)
    for path in (tree.root / "series").glob("*.dcm"):
        path.rename(path.with_suffix(""))
    item = found(tree, "series")
    assert (item.kind, item.n_files) == ("dicom", 2)


def test_no_folder():
    with pytest.raises(BrainG3NError, match="does not exist"):
        walk("/nowhere")


@pytest.mark.parametrize("spacing", [0.7, 1.0])
def test_nifti_header(tree, spacing):
    tree.nifti("x.nii.gz", (176, 240, 256), spacing)
    header = read_header(tree.root, found(tree, "x.nii.gz"))
    assert (header.shape, header.n_volumes) == ((176, 240, 256), 1)
    assert header.spacing == pytest.approx((spacing,) * 3)


def test_analyze_header_is_big_endian_with_a_singleton(tree):
    tree.analyze("y", (256, 256, 128, 1))
    header = read_header(tree.root, found(tree, "y.hdr"))
    assert (header.shape, header.n_volumes) == ((256, 256, 128), 1)


def test_other_formats(tree):
    for path, image in {
        "a.mgz": nib.MGHImage(np.zeros((4, 5, 6, 3), np.float32), np.eye(4)),
        "b.mgh": nib.MGHImage(np.zeros((4, 5, 6), np.float32), np.eye(4)),
        "c.nii": nib.Nifti2Image(np.zeros((4, 5, 6), np.int16), np.eye(4)),
        "d.hdr": nib.Nifti1Pair(np.zeros((4, 5, 6), np.int16), np.eye(4)),
    }.items():
        nib.save(image, tree.root / path)
    headers = {item.path: read_header(tree.root, item) for item in walk(tree.root)}
    assert {path: header.shape for path, header in headers.items()} == dict.fromkeys(headers, (4, 5, 6))
    assert len(headers) == 4
    assert headers["a.mgz"].n_volumes == 3


def test_dicom_header_holds_nothing_that_identifies(tree):
    tree.dicom("s", Manufacturer="GE MEDICAL SYSTEMS", MagneticFieldStrength=1.494, ManufacturerModelName="Signa")
    header = read_header(tree.root, found(tree, "s"))
    assert (header.vendor, header.model, header.field_strength) == ("GE MEDICAL SYSTEMS", "Signa", 1.494)
    assert not [tag for tag in DICOM_TAGS if tag.startswith(("Patient", "Other", "Referring", "Institution", "Acc"))]
    text = repr(header)
    assert "Doe" not in text
    assert "SECRET" not in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08 broken", "header"),
        (gzip.compress(b"too short", mtime=0), "ends within its header"),
        (gzip.compress(b"x" * 400, mtime=0), "is not a NIfTI"),
    ],
    # Named, since pytest would name them by their bytes, and test workers must agree on the names.
    ids=["empty", "broken", "short", "other"],
)
def test_damaged_files_fail_with_a_reason(tree, content, words):
    tree.bytes("x.nii.gz", content)
    with pytest.raises(HeaderError, match=words):
        read_header(tree.root, found(tree, "x.nii.gz"))


def test_a_folder_of_two_series_is_two_images(tree):
    tree.dicom("f", "first", 3)
    tree.dicom("f", "second", 2, SeriesInstanceUID="1.2.3")
    parts = split_series(tree.root, found(tree, "f"))
    assert sorted(part.n_files for part in parts) == [2, 3]
    assert len({part.series_uid for part in parts}) == 2
    assert sum(part.n_bytes for part in parts) == found(tree, "f").n_bytes
    first = pydicom.dcmread(tree.root / parts[0].first)
    assert first.SeriesInstanceUID in ("1.2.3", "1.2.826.0.1.2")


def test_a_folder_of_one_series_stays(tree):
    tree.dicom("f", n_slices=3)
    assert split_series(tree.root, found(tree, "f")) == [found(tree, "f")]


def test_other_scanners_than_mr_are_left_out(tree):
    tree.dicom("ct/1", Modality="CT")
    pattern = ImagePattern(
        name="x", pattern=r"^(?P<subject>\w+)/.*\.dcm$", example="a/1/s.dcm", format="dicom", modality="T1"
    )
    from braing3n.cohorts.definition import load_definition

    definition = load_definition("IXI").model_copy(update={"images": (pattern,)})
    candidates, _ = match_all(definition, walk(tree.root))
    kept, verdicts = check_headers(tree.root, candidates, set())
    assert not kept
    assert verdicts[0].reason == "not MR but CT"


def test_samples_differ_where_contents_differ(tree):
    tree.nifti("a.nii.gz")
    tree.nifti("b.nii.gz")
    tree.nifti("c.nii.gz", content="a.nii.gz")
    a, b, c = (content_sample(tree.root, found(tree, f"{name}.nii.gz")) for name in "abc")
    assert a == c != b


def test_found_is_sorted_and_relative(tree):
    for name in ("b/x.nii", "a/x.nii", "a.nii"):
        tree.nifti(name)
    paths = [item.path for item in walk(tree.root)]
    assert paths == sorted(paths)
    assert all(isinstance(item, Found) and not item.path.startswith("/") for item in walk(tree.root))
