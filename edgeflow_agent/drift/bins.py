"""Which bin a value falls into, and what counts in one set of bins say about another set.

The fine bins and the quantile bins are those of docs/baseline.md: a baseline and its windows can only be
compared while both sides count alike. The edges of Sturges are Evidently's, rebuilt without the samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FINE_BINS = 1024

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def whole(numbers: Sequence[int]) -> npt.NDArray[np.integer]:
    """An array of whole numbers, of uint8 or int64; raise OverflowError for larger ones."""
    if not numbers:
        return np.zeros(0, dtype=np.int64)
    try:
        # Most counts and gaps are small, and by way of bytes they take a tenth of the time.
        return np.frombuffer(bytearray(numbers), dtype=np.uint8)
    except ValueError:
        return np.array(numbers, dtype=np.int64)


def fine_cells(values: Floats, low: float, high: float) -> Ints:
    """The fine bin of each value; what lies outside `low` to `high` is in the first or the last one."""
    # Clipped before it is scaled: a value of 1e100 may have no distance in bin widths that is a number.
    scaled = (np.minimum(np.maximum(values, low), high) - low) * (FINE_BINS / (high - low))
    return np.minimum(scaled, FINE_BINS - 1).astype(np.int64)


def fine_edges(low: float, high: float) -> Floats:
    """The FINE_BINS + 1 edges of the fine bins."""
    return np.linspace(low, high, FINE_BINS + 1)


def quantile_cells(values: Floats, edges: Floats) -> Ints:
    """0 below the first edge, then the bins as `numpy.histogram` counts them, then one for what is above
    the last edge. A single edge has one bin that holds exactly that value."""
    inner = edges[:-1] if edges.size > 1 else edges
    cells: Ints = np.searchsorted(inner, values, side="right") + (values > edges[-1])
    return cells


def quantile_cell_count(edges: Floats) -> int:
    """How many cells `quantile_cells` tells apart."""
    return max(edges.size - 1, 1) + 2


def point_cells(values: Floats, points: Floats) -> Ints:
    """For k sorted distinct points the 2k + 1 places a value can have: 2i between the points i - 1 and i,
    2i + 1 exactly at point i."""
    return np.searchsorted(points, values, side="left") + np.searchsorted(points, values, side="right")


def value_cells(values: Floats, known: Floats) -> Ints:
    """The index among the sorted known values, or their number for a value that is none of them."""
    index = np.searchsorted(known, values)
    at = np.minimum(index, known.size - 1)
    return np.where(known[at] == values, at, known.size)


def sturges_edges(low: float, high: float, n: int) -> Floats:
    """`numpy.histogram_bin_edges(samples, bins="sturges")` of n float64 samples from `low` to `high`."""
    # The same operations in the same order: a rounding error more would be a bin more.
    width = (high - low) / (np.log2(n) + 1.0)
    bins = math.ceil((high - low) / width) if width else 1
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def quantiles(ordered: Floats, shares: Floats) -> Floats:
    """`numpy.quantile` of sorted values: the same bits."""
    # numpy's own imports masked arrays on its way, 3 MB of a device.
    place = shares * (ordered.size - 1)
    index = np.minimum(np.floor(place).astype(np.int64), max(ordered.size - 2, 0))
    low, high = ordered[index], ordered[np.minimum(index + 1, ordered.size - 1)]
    part, apart = place - index, high - low
    found: Floats = np.where(part >= 0.5, high - apart * (1 - part), low + apart * part)
    return found


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values of an array, sorted, each once."""
    # Without the counts numpy imports masked arrays here too.
    return np.unique(values, return_counts=True)[0]


def rebinned(edges: Floats, knots: Floats, below: Floats) -> Ints:
    """Counts between `edges`, from how many values lie below each of the sorted `knots`.

    Between two knots values are taken to lie evenly. The counts are whole: a fraction of a value in a bin
    that is empty in truth would change how Evidently fills its zeros.
    """
    until = np.rint(np.interp(edges, knots, below))
    # All values lie between the outer edges, also those exactly at them.
    until[0], until[-1] = 0, below[-1]
    return np.diff(until).astype(np.int64)
