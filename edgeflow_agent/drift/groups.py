"""Cells put together until each has enough values for a test: what a window is judged by.

In 256 bins a window of 500 values has two in each, and any index over them is nothing but chance.
"""

from __future__ import annotations

import numpy as np

from edgeflow_agent.drift.bins import Ints, distinct

MOST = 16
# Values that each group should have in the smaller of both samples: fewer, and the tail of the
# chi-square distribution no longer says how rare a result is.
ORDERED_EXPECTED = 20
NAMED_EXPECTED = 10


def number_of_ordered(total: int, n: Ints) -> Ints:
    """How many groups of neighbours there are at most, for a baseline of `total` values and windows of n."""
    number: Ints = np.minimum(np.maximum(np.minimum(n, total) // ORDERED_EXPECTED, 1), MOST)
    return number


def of_order(reference: Ints, number: int) -> Ints:
    """At most so many groups of neighbouring cells, of about equal mass: the group of each cell."""
    total = int(reference.sum())
    mass = total / number
    # Rounding: 16 times a sixteenth.
    mass *= 1 - 1e-9
    groups = []
    group, collected, left = 0, 0, total
    for count in reference.tolist():
        groups.append(group)
        collected += count
        left -= count
        # What is left over joins the last group when it makes none of its own.
        if collected >= mass and left >= mass:
            group, collected = group + 1, 0
    return np.array(groups, dtype=np.int64)


def of_names(reference: Ints, n: Ints) -> list[tuple[Ints, Ints]]:
    """For windows of n values a group for each cell that is common enough, all others together: which of the
    windows, and the group of each cell for these. The last cell, which holds what is not listed, is always
    among the others."""
    total = int(reference.sum())
    sizes = np.maximum(1, np.minimum(n, total))
    # Only how many cells are common enough differs from window to window, and what becomes of the others.
    listed = np.sort(reference[:-1])
    numbers = listed.size - np.searchsorted(listed, NAMED_EXPECTED * total / sizes, side="left")
    rest = total - np.concatenate(([0], np.cumsum(listed[::-1])))[numbers]
    few = (numbers > 0) & (rest * np.minimum(n, total) < NAMED_EXPECTED * total)
    kinds = numbers * 2 + few
    return [
        (np.flatnonzero(kinds == kind), _named(reference, listed, kind // 2, few=bool(kind % 2)))
        for kind in distinct(kinds).tolist()
    ]


def _named(reference: Ints, listed: Ints, number: int, *, few: bool) -> Ints:
    common = reference >= (listed[listed.size - number] if number else np.inf)
    common[-1] = False
    groups = np.where(common, np.cumsum(common) - 1, number)
    # A few rare ones make no group: that they were seen at all is chance, and a group of chances is not.
    if few:
        groups[~common] = groups[np.where(common, reference, reference.sum() + 1).argmin()]
    return groups


def summed(counts: Ints, groups: Ints) -> Ints:
    """The counts of the groups, along the last axis. No group is empty of cells."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    found: Ints = np.add.reduceat(counts[..., order], starts, axis=-1)
    return found
