"""Counters that take as little memory as what they have counted allows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift.bins import Ints

# Two bytes carry a window of a device, eight a year of a fleet (signed: uint64 and int64 make floats).
_WIDTHS = (np.uint16, np.uint32, np.int64)


class Counters:
    """A fixed number of counters from zero up, widened together as soon as one of them needs it."""

    __slots__ = ("_counts",)

    def __init__(self, size: int) -> None:
        self._counts: npt.NDArray[np.integer] = np.zeros(size, dtype=_WIDTHS[0])

    @property
    def size(self) -> int:
        """How many counters there are."""
        return self._counts.size

    @property
    def nbytes(self) -> int:
        """The memory of the counts."""
        return self._counts.nbytes

    def dense(self) -> Ints:
        """All counts, as a copy."""
        return self._counts.astype(np.int64)

    def tally(self, cells: Ints) -> None:
        """Count each of the cells (indexes below `size`) once."""
        self.add(np.bincount(cells, minlength=self._counts.size))

    def add(self, counts: Ints) -> None:
        """Add an array of `size` counts."""
        total = self._counts + counts
        largest = int(total.max(initial=0))
        fitting = (width for width in _WIDTHS if largest <= np.iinfo(width).max)
        self._counts = total.astype(np.promote_types(next(fitting, np.int64), self._counts.dtype))
