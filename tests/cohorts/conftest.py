"""Small cohorts in their own layouts, indexed once a session."""

import pytest

from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.scan import scan_cohort
from braing3n.phantom.layouts import LAYOUTS, write_layout

# Volumes and persons that exercise every branch of a layout: all sites, codes and sessions with and without repeats.
SIZES = {"UPENN-GBM": (16, 4), "UCSF-PDGM": (32, 8), "HCP-YA": (12, 6), "SCHIZO": (12, 6), "PPMI": (16, 5)} | {
    "IXI": (23, 12),
    "ADNI": (25, 6),
    "OASIS-2": (10, 4),
}
ONE_EACH = ("HBN", "FCON1000", "ADHD-200", "CoRR", "NKI-RS2")


class Scanned:
    """One cohort with its traps, its truth and what the index made of it."""

    def __init__(self, name, folder, traps=True):
        volumes, subjects = SIZES.get(name, (11, 11) if name in ONE_EACH else (12, 9))
        self.name = name
        self.tree = write_layout(name, folder, volumes, subjects, traps=traps)
        self.definition = load_definition(name)
        self.scan = scan_cohort(self.definition, folder)
        self.rows = self.scan.rows.set_index("source_path")
        self.ledger = self.scan.ledger.set_index("path")


@pytest.fixture(scope="session")
def scanned(tmp_path_factory):
    """`scanned(name)`: that cohort, made and scanned at its first use."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = Scanned(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture(params=sorted(LAYOUTS))
def cohort(request, scanned):
    return scanned(request.param)
