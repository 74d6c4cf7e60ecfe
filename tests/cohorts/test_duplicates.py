"""The same file twice: kept once under one name, not at all under several."""

import shutil

from braing3n.cohorts.check import check_folder
from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.scan import scan_cohort
from braing3n.phantom.layouts import write_layout
from braing3n.phantom.layouts.tree import Tree


def test_duplicate_files_are_one_image(tmp_path):
    tree = Tree(tmp_path)
    write_layout("IXI", tmp_path, 2, 1)
    first = tmp_path / "IXI001-Guys-1000-T1.nii.gz"
    copy = "copies/IXI001-Guys-1000-T1.nii.gz"
    tree.bytes(copy, first.read_bytes())
    tree.bytes("IXI001-Guys-1999-T1.nii.gz", first.read_bytes())  # the same image under another session
    scan = scan_cohort(load_definition("IXI"), tmp_path)
    assert len(scan.rows) == 2
    ledger = scan.ledger.set_index("path")
    for path in (copy, "IXI001-Guys-1999-T1.nii.gz"):
        assert ledger.loc[path, "reason"] == "same content as IXI001-Guys-1000-T1.nii.gz"


def test_an_image_of_two_subjects_is_nobodys(tmp_path):
    """Kept for both it would stand on two sides of a split; kept for one, half of the time for the wrong one."""
    tree = Tree(tmp_path)
    write_layout("IXI", tmp_path, 4, 2)
    first, second = "IXI001-Guys-1000-T1.nii.gz", "IXI900-HH-1000-T1.nii.gz"
    tree.bytes(second, (tmp_path / first).read_bytes())
    scan = scan_cohort(load_definition("IXI"), tmp_path)
    assert not {first, second} & set(scan.rows["source_path"])
    assert len(scan.rows) == 3
    ledger = scan.ledger.set_index("path")
    reason = f"same content as another subject's image: {first} = {second}"
    assert set(ledger.loc[[first, second], "reason"]) == {reason}
    assert any(reason in note for note in scan.notes)
    check = check_folder(load_definition("IXI"), tmp_path)
    assert check.left_out["same content as another subject's image"] == [first, second]


def test_an_image_of_two_modalities_is_neither(tmp_path):
    tree = Tree(tmp_path)
    tree.nifti("IXI001-Guys-1000-T1.nii.gz", content="same")
    tree.nifti("IXI001-Guys-1000-T2.nii.gz", content="same")
    tree.nifti("IXI002-Guys-1000-T2.nii.gz")
    scan = scan_cohort(load_definition("IXI"), tmp_path)
    assert list(scan.rows["source_path"]) == ["IXI002-Guys-1000-T2.nii.gz"]
    assert scan.ledger["reason"].str.startswith("same content as an image of another modality").sum() == 2


def test_equal_size_is_not_equal_content(tmp_path):
    """All files of a layout have one size here, and every image of one person is kept."""
    write_layout("OASIS-2", tmp_path, 6, 2)
    assert len({p.stat().st_size for p in tmp_path.rglob("*.img")}) == 1
    assert len(scan_cohort(load_definition("OASIS-2"), tmp_path).rows) == 6


def test_copies_of_dicom_series_are_found(tmp_path):
    folder = "ADNI/001_S_0001/MPRAGE/20{0}-01-01_10_00_00.0/I{0}"
    for year in (10, 12):
        Tree(tmp_path).dicom(folder.format(year))
    shutil.copytree(tmp_path / folder.format(10), tmp_path / folder.format(11))
    scan = scan_cohort(load_definition("ADNI"), tmp_path)
    assert list(scan.rows["session_id"]) == ["20100101", "20120101"]
