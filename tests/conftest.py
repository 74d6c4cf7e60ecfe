"""Fixtures shared by all tests."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from braing3n.config.data import AtlasSettings
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of
from braing3n.preprocess.atlas import fetch_atlas, load_atlas

CACHE = Path(__file__).parents[1] / "build" / "test-cache"


@pytest.fixture(scope="session")
def atlas_dir() -> Path:
    """Folder with the conformed SRI24 atlas: fetched once, kept between runs while its hashes hold."""
    folder = CACHE / "atlas"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "atlas.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of pytest-xdist share the folder
        if not _is_whole(folder):
            fetch_atlas(AtlasSettings(), folder)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        return all(sha256_of(folder / name) == digest for name, digest in load_atlas(folder).sha256.items())
    except (BrainG3NError, KeyError):
        return False
