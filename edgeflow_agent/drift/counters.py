"""Counters that take as little memory as what they have counted allows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift.bins import Ints

# Two bytes carry a window of a device, eight a year of a fleet (signed: uint64 and int64 make floats).
_WIDTHS: tuple[np.dtype[np.integer], ...] = (np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.int64))
_LARGEST = tuple(int(np.iinfo(width).max) for width in _WIDTHS)


class Counters:
    """A fixed number of counters from zero up, widened together as soon as one of them needs it."""

    __slots__ = ("_counts",)

    def __init__(self, size: int) -> None:
        self._counts: npt.NDArray[np.integer] = np.zeros(size, dtype=_WIDTHS[0])

    @classmethod
    def of(cls, size: int, cells: Ints, counts: npt.NDArray[np.integer]) -> Counters:
        """As many counters, of which those in `cells` have these counts and all others zero."""
        made = cls(0)
        made._counts = np.zeros(size, dtype=_width(int(counts.max(initial=0))))
        made._counts[cells] = counts
        return made

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
        width = max(_width(int(total.max(initial=0))), self._counts.dtype)
        self._counts = total.astype(width)


def _width(largest: int) -> np.dtype[np.integer]:
    """The least that carries this number."""
    return next(width for width, most in zip(_WIDTHS, _LARGEST, strict=True) if largest <= most)
