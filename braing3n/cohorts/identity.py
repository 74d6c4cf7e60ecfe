"""Labels that BIDS allows (letters and digits only), unique and independent of the order of rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from braing3n.files import short_hash


def clean(text: str) -> str:
    """Letters and digits of a text: `002_S_0413` -> `002S0413`."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def labels(ids: Iterable[str], prefix: str = "") -> dict[str, str]:
    """id -> label. Ids that only differ in what a label may not hold (`1-1`, `11`) get a hash behind theirs.

    Labels are told apart without regard to case, since some file systems do not regard it either.
    """
    ids = sorted(set(ids))
    plain = {item: prefix + clean(item) for item in ids}
    counts = Counter(label.casefold() for label in plain.values())
    return {
        item: label if counts[label.casefold()] == 1 and clean(item) else f"{label}{short_hash(item, length=6)}"
        for item, label in plain.items()
    }
