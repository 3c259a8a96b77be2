"""Cells put together until each has enough values for a test: what a window is judged by.

In 256 bins a window of 500 values has two in each, and any index over them is nothing but chance.
"""

from __future__ import annotations

import numpy as np

from edgeflow_agent.drift.bins import Ints

MOST = 16
# Values that each group should have in the smaller of both samples: fewer, and the tail of the
# chi-square distribution no longer says how rare a result is.
ORDERED_EXPECTED = 20
NAMED_EXPECTED = 10


def of_order(reference: Ints, n: int) -> Ints:
    """Groups of neighbouring cells of about equal mass, for a window of n values: the group of each cell."""
    total = int(reference.sum())
    count = min(MOST, max(1, min(n, total) // ORDERED_EXPECTED))
    return _grouped(reference, total / count)


def of_names(reference: Ints, n: int) -> Ints:
    """A group for each cell that is common enough, the others together, for a window of n values."""
    total = int(reference.sum())
    return _grouped(reference, NAMED_EXPECTED * total / max(1, min(n, total)))


def summed(counts: Ints, groups: Ints) -> Ints:
    """The counts of the groups."""
    return np.bincount(groups, weights=counts).astype(np.int64)


def _grouped(reference: Ints, mass: float) -> Ints:
    groups = []
    group, collected = 0, 0
    # A last group that stays below the mass joins the one before it. Rounding: 16 times a sixteenth.
    left = int(reference.sum())
    for count in reference.tolist():
        groups.append(group)
        collected += count
        left -= count
        if collected >= mass * (1 - 1e-9) and left >= mass * (1 - 1e-9):
            group, collected = group + 1, 0
    return np.array(groups, dtype=np.int64)
