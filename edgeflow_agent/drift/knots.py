"""How many values lie below which place: all that a sketch knows of the order of its values.

Counts over other edges are read between these knots, see `bins.rebinned`.
"""

from __future__ import annotations

import numpy as np

from edgeflow_agent.drift.baseline import Distribution
from edgeflow_agent.drift.bins import Floats, fine_edges
from edgeflow_agent.drift.sketch import NumericSketch, Tail

Knots = tuple[Floats, Floats]


def of_reference(seen: Distribution) -> Knots:
    """The places, sorted, and the numbers of values below them: of a baseline."""
    places = np.concatenate((fine_edges(seen.fine_low, seen.fine_high), seen.edges[:-1]))
    inner = np.cumsum(seen.counts)[:-1]
    below = np.concatenate(([0], np.cumsum(seen.fine), [0], inner))
    return _sorted(np.clip(places, seen.min, seen.max), below)


def of_window(sketch: NumericSketch, seen: Distribution, *, winsorised: bool) -> Knots:
    """The same of a window, with all its values in the range of the fine bins where they are winsorised."""
    n = sketch.finite
    fine = np.cumsum(sketch.fine.dense())
    edges = fine_edges(seen.fine_low, seen.fine_high)
    quantiles = np.cumsum(sketch.quantiles.dense())[: seen.edges.size - 1]
    low, high = np.clip([sketch.min, sketch.max], seen.fine_low, seen.fine_high)
    places = np.clip(np.concatenate((edges, seen.edges[:-1])), low, high)
    if winsorised or not (sketch.below.count or sketch.above.count):
        return _sorted(places, np.concatenate(([0], fine, quantiles)))
    under, over = sketch.below, sketch.above
    below = np.concatenate(([under.count], fine[:-1], [n - over.count], quantiles))
    places, below = _sorted(places, below)
    if under.count:
        far, counts = _tail(under, seen.fine_low - sketch.min)
        places = np.concatenate(((seen.fine_low - far)[::-1], places))
        below = np.concatenate(((under.count - counts)[::-1], below))
    if over.count:
        far, counts = _tail(over, sketch.max - seen.fine_high)
        places = np.concatenate((places, seen.fine_high + far))
        below = np.concatenate((below, n - over.count + counts))
    return places, below


def _tail(tail: Tail, furthest: float) -> Knots:
    # One value lies exactly at the extreme; the others, of which the sum is known, evenly from the bins on.
    others = tail.count - 1
    reach = min(2 * max(tail.excess - furthest, 0.0) / others, furthest) if others else 0.0
    return np.array([reach, furthest, furthest]), np.array([others, others, tail.count], dtype=np.float64)


def _sorted(places: Floats, below: Floats) -> Knots:
    order = np.lexsort((below, places))
    # A value within rounding of an edge may be on either side of it.
    return places[order], np.maximum.accumulate(below[order].astype(np.float64))
