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


def number_of_ordered(total: int, n: int) -> int:
    """How many groups of neighbours there are at most, for a baseline of `total` values and a window of n."""
    return min(MOST, max(1, min(n, total) // ORDERED_EXPECTED))


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


def of_names(reference: Ints, n: int) -> Ints:
    """A group for each cell that is common enough, all others together, for a window of n values. The last
    cell, which holds what is not listed, is always among the others."""
    total = int(reference.sum())
    common = reference >= NAMED_EXPECTED * total / max(1, min(n, total))
    common[-1] = False
    groups = np.where(common, np.cumsum(common) - 1, int(common.sum()))
    # A few rare ones make no group: that they were seen at all is chance, and a group of chances is not.
    if common.any() and reference[~common].sum() * min(n, total) < NAMED_EXPECTED * total:
        groups[~common] = groups[np.where(common, reference, total + 1).argmin()]
    return groups


def summed(counts: Ints, groups: Ints) -> Ints:
    """The counts of the groups."""
    return np.bincount(groups, weights=counts).astype(np.int64)
