"""Folder trees in the cohorts' own layouts, with true headers and tables but no voxels: made to be indexed.

The cohorts that go through the whole pipeline are made elsewhere in braing3n.phantom.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from braing3n.phantom.layouts import archives, indi, projects
from braing3n.phantom.layouts.tree import Tree

LAYOUTS: dict[str, Callable[[Tree, int, int, bool], None]] = {
    "ADNI": archives.adni,
    "PPMI": projects.ppmi,
    "NKI-RS": indi.nki_rs,
    "UPENN-GBM": archives.upenn_gbm,
    "HCP-YA": projects.hcp_ya,
    "HBN": indi.hbn,
    "UCSF-PDGM": projects.ucsf_pdgm,
    "BGSP": indi.bgsp,
    "ABIDE-II": indi.abide_2,
    "FCON1000": indi.fcon1000,
    "IXI": archives.ixi,
    "ABIDE-I": indi.abide_1,
    "SCHIZO": projects.schizo,
    "ADHD-200": indi.adhd_200,
    "CoRR": indi.corr,
    "OASIS-1": projects.oasis_1,
    "OASIS-2": projects.oasis_2,
    "NKI-RS2": indi.nki_rs2,
}


def write_layout(cohort: str, root: str | Path, volumes: int, subjects: int, *, traps: bool = False) -> Tree:
    """Write a cohort's folder with so many images and persons.

    Args:
        traps: add what has gone wrong with this cohort elsewhere: files to leave out, codes that mislead.

    Returns:
        The tree, with the truth about every image that an index must keep or leave out.
    """
    tree = Tree(Path(root))
    LAYOUTS[cohort](tree, volumes, subjects, traps)
    return tree
