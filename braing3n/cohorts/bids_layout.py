"""What `layout: bids` puts into a definition: any key that the cohort's file gives itself replaces these."""

from __future__ import annotations

from typing import Any

_ENTITIES = r"(?:_(?!run-)[a-z]+-[A-Za-z0-9]+)*"
_SEX = {"M": "M", "F": "F", "male": "M", "female": "F"}
_HANDEDNESS = {"R": "R", "L": "L", "A": "A", "right": "R", "left": "L", "ambidextrous": "A"}


def bids_defaults() -> dict[str, Any]:
    """Raw BIDS: anatomical images, `participants.tsv`, `sub-*_sessions.tsv` and the scanner from JSON sidecars."""
    return {
        "images": {
            "BIDS": {
                "pattern": (
                    r"(?:^|/)sub-(?P<subject>[A-Za-z0-9]+)/(?:ses-(?P<session>[A-Za-z0-9]+)/)?anat/"
                    r"sub-(?P=subject)(?:_ses-[A-Za-z0-9]+)?"
                    rf"(?P<contrast>{_ENTITIES}(?:_run-(?P<run>\d+))?{_ENTITIES}_[A-Za-z0-9]+)\.nii(?:\.gz)?$"
                ),
                "example": "sub-01/ses-1/anat/sub-01_ses-1_run-1_T1w.nii.gz",
                "modality": {
                    "group": "contrast",
                    "exclude": {
                        "_part-(?:phase|imag|real)": "phase, real or imaginary part",
                        "_echo-(?!1_|01_)": "later echo",
                    },
                    "rules": {"_ce-.*_T1w$": "T1c", "_T1w$": "T1", "_T2w$": "T2", "_FLAIR$": "FLAIR"},
                },
            }
        },
        "exclude": [
            {"match": "(?:^|/)derivatives/", "reason": "derivative, not a raw image"},
            {"match": "(?:^|/)sourcedata/", "reason": "source data, not part of the raw dataset"},
            {
                "match": "(?:^|/)(?:func|dwi|fmap|perf|eeg|meg|ieeg|pet|beh|micr|nirs|motion)/",
                "reason": "not anatomical",
            },
        ],
        "tables": {
            "participants": {
                "files": ["participants.tsv", "**/participants.tsv"],
                "extract": {"participant_id": "^(?:sub-)?(?P<participant>.+)$"},
                "key": "{participant}",
            },
            "sessions": {
                "files": ["**/sub-*_sessions.tsv"],
                "combine": "all",
                "optional": True,
                "path": r"sub-(?P<participant>[A-Za-z0-9]+)_sessions\.tsv$",
                "extract": {"session_id": "^(?:ses-)?(?P<visit>.+)$"},
                "key": "{participant}_{visit}",
                "match": "{subject}_{session}",
            },
        },
        "fields": {
            "age_at_scan": [
                {"table": "sessions", "columns": ["age", "age_at_scan"], "optional": True},
                {"table": "participants", "columns": ["age", "Age"], "optional": True, "source": "baseline"},
            ],
            "sex": [{"table": "participants", "columns": ["sex", "Sex", "gender"], "optional": True, "codes": _SEX}],
            "handedness": [
                {"table": "participants", "columns": ["handedness"], "optional": True, "codes": _HANDEDNESS},
            ],
            "site": [{"table": "participants", "columns": ["site"], "optional": True}],
            "vendor": [{"header": "vendor"}],
            "scanner_model": [{"header": "model"}],
            "field_strength": [{"header": "field_strength"}],
        },
    }
