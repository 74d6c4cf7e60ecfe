"""The same image found more than once: one copy is kept, or none where nobody can tell whose image it is."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from braing3n.cohorts.candidates import READING_THREADS, Candidate, Verdict
from braing3n.cohorts.headers import content_sample
from braing3n.files import sha256_of

OF_ANOTHER = "same content as another subject's image"
FOR_ANOTHER = "same content as an image of another modality"


def drop_duplicates(root: Path, candidates: list[Candidate]) -> tuple[list[Candidate], list[Verdict]]:
    """Leave out copies of an image, wherever they lie.

    Of copies under one subject and modality the first session's is kept. Copies under several subjects or modalities
    are left out altogether: at most one of the names is true, and the image would stand on both sides of a split.
    """
    verdicts: dict[int, Verdict] = {}
    for alike in _groups(candidates, lambda c: (c.found.kind, c.found.n_bytes, c.found.n_files)):
        with ThreadPoolExecutor(READING_THREADS) as pool:
            samples = dict(zip(map(id, alike), pool.map(lambda c: content_sample(root, c.found), alike), strict=True))
        for suspects in _groups(alike, lambda c, samples=samples: samples[id(c)]):
            for copies in _groups(suspects, lambda c: _content(root, c)):
                verdicts |= _judged(sorted(copies, key=lambda c: (c.session, c.rank)))
    return [c for c in candidates if id(c) not in verdicts], list(verdicts.values())


def _groups(candidates: list[Candidate], key) -> list[list[Candidate]]:
    """Those that share a key with another, group by group."""
    groups: dict = defaultdict(list)
    for candidate in candidates:
        groups[key(candidate)].append(candidate)
    return [group for group in groups.values() if len(group) > 1]


def _content(root: Path, candidate: Candidate) -> str:
    found = candidate.found
    return sha256_of(root / (found.path if found.kind == "dicom" else found.voxels or found.first))


def _judged(copies: list[Candidate]) -> dict[int, Verdict]:
    first = copies[0]
    if len({(c.subject, c.modality) for c in copies}) == 1:
        reasons = {id(c): f"same content as {first.found.path}" for c in copies[1:]}
    else:
        reason = OF_ANOTHER if len({c.subject for c in copies}) > 1 else FOR_ANOTHER
        reasons = {id(c): f"{reason}: {' = '.join(other.found.path for other in copies)}" for c in copies}
    return {id(c): Verdict(c.found, "excluded", reasons[id(c)]) for c in copies if id(c) in reasons}
