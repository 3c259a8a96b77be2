"""The counters of many records in a row, as they are sent: how far each lies behind the one before it, and
what it has counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift import bins
from edgeflow_agent.drift.bins import Ints
from edgeflow_agent.wire.sketches import NOTHING, Sparse

MAX_COUNT = 2**53
WRONG_LENGTH = "are of a wrong length"
OUT_OF_RANGE = "have one that is zero or over 2**53"

# What is wrong with the record of which number.
Problems = dict[int, str]


class Flat(NamedTuple):
    """The counters of one record after those of another, `lengths` of each."""

    gaps: npt.NDArray[np.integer]
    counts: npt.NDArray[np.integer]
    lengths: Ints


Flatten = Callable[[Sequence[Any]], tuple[Flat, Problems]]


def flat(parts: Sequence[Sparse]) -> tuple[Flat, Problems]:
    """Counters as they were decoded. Those with a problem are left out."""
    problems = {number: WRONG_LENGTH for number, part in enumerate(parts) if len(part.gap) != len(part.count)}
    while True:
        kept = [NOTHING if number in problems else part for number, part in enumerate(parts)]
        try:
            return Flat(
                gaps=bins.whole(list(chain.from_iterable(part.gap for part in kept))),
                counts=bins.whole(list(chain.from_iterable(part.count for part in kept))),
                lengths=np.array([len(part.gap) for part in kept], dtype=np.int64),
            ), problems
        except OverflowError:
            large = (max(*part.gap, *part.count, 0, 0) > MAX_COUNT for part in kept)
            problems |= {number: OUT_OF_RANGE for number, is_large in enumerate(large) if is_large}
