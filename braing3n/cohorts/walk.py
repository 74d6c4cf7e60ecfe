"""Everything that lies under a cohort's root: one entry a file, a DICOM series or an Analyze pair."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from braing3n.errors import BrainG3NError

Kind = Literal["nifti", "mgz", "analyze", "dicom", "other", "hidden", "broken"]
_SUFFIXES: tuple[tuple[str, Kind], ...] = (
    (".nii.gz", "nifti"),
    (".nii", "nifti"),
    (".mgz", "mgz"),
    (".mgh", "mgz"),
    (".hdr", "analyze"),
    (".img", "analyze"),
    (".dcm", "dicom"),
    (".ima", "dicom"),
)
PERMISSION = "give yourself permission, such as by chmod -R u+rX"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing under the root. `path` and `first` are POSIX and relative to it.

    `path` is what the ledger names: the file, the folder of a DICOM series, or the `.hdr` of an Analyze pair; `first`
    is the file whose header speaks for it, and the path that image patterns are matched against. `voxels` is where the
    voxels are, if not in `first`.
    """

    path: str
    first: str
    kind: Kind
    n_bytes: int
    n_files: int = 1
    complaint: str | None = None
    series_uid: str | None = None
    voxels: str | None = None


def kind_of(name: str) -> Kind:
    """Kind of a file by its name."""
    if name.startswith("."):
        return "hidden"
    lower = name.lower()
    return next((kind for suffix, kind in _SUFFIXES if lower.endswith(suffix)), "other")


def walk(root: str | Path) -> list[Found]:
    """All files under `root`, sorted by path; links to folders are followed, each folder once.

    Raises:
        BrainG3NError: `root` is not a folder or cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise BrainG3NError("the cohort's folder does not exist", file=root)
    found: list[Found] = []
    visited: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        folder = pending.pop()
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        files: dict[str, int] = {}
        prefix = f"{folder}/" if folder else ""
        try:
            scanned = os.scandir(root / folder)
        except PermissionError as error:
            if not folder:
                raise BrainG3NError("the cohort's folder may not be read", file=root, remedy=PERMISSION) from error
            found.append(Found(folder, folder, "broken", 0, complaint=f"folder may not be read: {PERMISSION}"))
            continue
        with scanned as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(prefix + entry.name)
                elif entry.is_file():
                    files[entry.name] = entry.stat().st_size
                else:
                    found.append(Found(prefix + entry.name, prefix + entry.name, "broken", 0))
        found.extend(_of_folder(root, prefix, files))
    return sorted(found, key=lambda item: item.path)


def _of_folder(root: Path, prefix: str, files: dict[str, int]) -> list[Found]:
    """Entries of one folder from its files (name -> bytes)."""
    by_kind: dict[Kind, list[str]] = defaultdict(list)
    for name in sorted(files):
        by_kind[kind_of(name)].append(name)
    nameless = [name for name in by_kind["other"] if "." not in name]
    if nameless and _is_dicom(root / (prefix + nameless[0])):  # scanners export slices without a file ending
        by_kind["dicom"] += nameless
        by_kind["other"] = [name for name in by_kind["other"] if name not in set(nameless)]
    found = [
        Found(prefix + name, prefix + name, kind, files[name])
        for kind in ("nifti", "mgz", "other", "hidden")
        for name in by_kind[kind]
    ]
    found += _analyze_pairs(prefix, by_kind["analyze"], files)
    if slices := by_kind["dicom"]:
        size = sum(files[name] for name in slices)
        found.append(Found(prefix.rstrip("/") or ".", prefix + slices[0], "dicom", size, len(slices)))
    return found


def _analyze_pairs(prefix: str, names: list[str], files: dict[str, int]) -> list[Found]:
    """`.hdr` and `.img` are one image, named by the header."""
    halves: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        stem, ending = name[:-4], name[-3:].lower()
        halves[stem][ending] = name
    found = []
    for pair in halves.values():
        name = pair.get("hdr") or pair["img"]
        complaint = (
            None if len(pair) == 2 else f"the other half of the pair is missing (.{'img' if 'hdr' in pair else 'hdr'})"
        )
        size = sum(files[half] for half in pair.values())
        voxels = prefix + pair["img"] if "img" in pair else None
        found.append(Found(prefix + name, prefix + name, "analyze", size, len(pair), complaint, voxels=voxels))
    return found


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(132)[128:] == b"DICM"
