"""A sketch on the wire, and back from a device that nobody vouches for.

What a device says about its window is checked against itself and against the baseline before anything is
computed from it: afterwards every sum of counts is the number of values, and every number is finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edgeflow_agent import errors
from edgeflow_agent.drift import bins
from edgeflow_agent.drift.baseline import LARGEST, ROUNDING, Categorical, Distribution, Feature, Numeric
from edgeflow_agent.drift.counters import Counters
from edgeflow_agent.drift.moments import Moments
from edgeflow_agent.drift.sketch import CategoricalSketch, NumericSketch, Sketch, Tail, cells_of
from edgeflow_agent.wire.sketches import (
    NOTHING,
    CategoricalRecord,
    NumericRecord,
    SketchRecord,
    Sparse,
)

MAX_COUNT = 2**53


def to_record(sketch: Sketch) -> SketchRecord:
    """The record of a window's sketch."""
    if isinstance(sketch, CategoricalSketch):
        return CategoricalRecord(
            name=sketch.feature.name,
            n=sketch.n,
            missing=sketch.missing,
            other=sketch.other,
            counts=_sparse(sketch.counts),
        )
    head = NumericRecord(name=sketch.feature.name, n=sketch.n, missing=sketch.missing, inf=sketch.inf)
    if sketch.finite == 0:
        return head
    moved = sketch.below.count or sketch.above.count
    return msgspec.structs.replace(
        head,
        min=sketch.min,
        max=sketch.max,
        mean=sketch.moments.mean,
        m2=sketch.moments.m2,
        inner_mean=sketch.inner.mean if moved else None,
        inner_m2=sketch.inner.m2 if moved else None,
        below=sketch.below.count,
        below_excess=sketch.below.excess,
        above=sketch.above.count,
        above_excess=sketch.above.excess,
        fine=_sparse(sketch.fine),
        quantiles=_sparse(sketch.quantiles),
        values=_sparse(sketch.values),
        points=_sparse(sketch.points),
    )


def from_record(feature: Feature, record: SketchRecord) -> Sketch:
    """The sketch of a record, against this feature of the baseline. Raise ContractError when the record is
    of another feature or contradicts itself."""
    try:
        _require(record.name == feature.name, f"it is of {record.name[:100]!r}")
        if isinstance(feature, Numeric):
            if isinstance(record, NumericRecord):
                return _numeric(feature, record)
            raise ValueError("it is of words, and the baseline has numbers")
        if isinstance(record, CategoricalRecord):
            return _categorical(feature, record)
        raise ValueError("it is of numbers, and the baseline has words")
    except ValueError as error:
        raise errors.ContractError(
            f"the window of {feature.name[:100]!r} is refused: {error}", reason="document"
        ) from error


def _categorical(feature: Categorical, record: CategoricalRecord) -> CategoricalSketch:
    _in_range(record.n, record.missing, record.other)
    present = record.n - record.missing
    _require(0 <= record.other <= present, "it has more missing and other values than values")
    sketch = CategoricalSketch(feature)
    sketch.n, sketch.missing, sketch.other = record.n, record.missing, record.other
    sketch.counts = _counters(record.counts, sketch.counts.size, present - record.other, "category")
    return sketch


def _numeric(feature: Numeric, record: NumericRecord) -> NumericSketch:
    _in_range(record.n, record.missing, record.inf, record.below, record.above)
    sketch = NumericSketch(feature)
    sketch.n, sketch.missing, sketch.inf = record.n, record.missing, record.inf
    finite, seen = sketch.finite, feature.distribution
    _require(finite >= 0, "it has more missing and infinite values than values")
    sizes = sketch.fine.size, sketch.quantiles.size, sketch.values.size, sketch.points.size
    totals = [finite if size else 0 for size in sizes]
    sketch.fine = _counters(record.fine, sizes[0], totals[0], "fine")
    sketch.quantiles = _counters(record.quantiles, sizes[1], totals[1], "quantile")
    sketch.values = _counters(record.values, sizes[2], totals[2], "value")
    sketch.points = _counters(record.points, sizes[3], totals[3], "point")
    if finite == 0:
        empty = NumericRecord(name=record.name, n=record.n, missing=record.missing, inf=record.inf)
        _require(record == empty, "it describes values, but has none that is finite")
        return sketch
    _require(-LARGEST <= record.min <= record.max <= LARGEST, "min and max are out of order or beyond 1e100")
    sketch.min, sketch.max = record.min, record.max
    sketch.moments = _moments(finite, record.mean, record.m2, record.min, record.max)
    if seen is None:
        _require(not record.below and not record.above, "it has values beyond bins that are not there")
        return sketch
    low, high = seen.fine_low, seen.fine_high
    sketch.below = _tail(record.below, record.below_excess, low - record.min, "below", finite)
    sketch.above = _tail(record.above, record.above_excess, record.max - high, "above", finite)
    sketch.inner = sketch.moments
    if record.below or record.above:
        mean, m2 = record.inner_mean, record.inner_m2
        if mean is None or m2 is None:
            raise ValueError("it has values beyond the bins, but no inner mean and m2")
        sketch.inner = _moments(
            finite, mean, m2, min(max(record.min, low), high), min(max(record.max, low), high)
        )
    _check_extremes(sketch, record, seen)
    return sketch


def _check_extremes(sketch: NumericSketch, record: NumericRecord, seen: Distribution) -> None:
    """The first and the last value lie in the first and the last bin that is not empty."""
    fine, quantiles, values, points = cells_of(np.array([sketch.min, sketch.max]), seen)
    for sparse, cells in ((record.fine, fine), (record.quantiles, quantiles), (record.points, points)):
        outer = [sparse.gap[0] - 1, sum(sparse.gap) - 1] if sparse.gap else []
        _require(cells.tolist() == outer, "its min and max are not in its outer bins")
    if seen.values.size:
        # The last of these counts all that is none of the values, wherever it lies.
        _require(bool(sketch.values.dense()[values].all()), "its min or max is in no value that was counted")
    counts = sketch.fine.dense()
    if sketch.below.count > counts[0] or sketch.above.count > counts[-1]:
        raise ValueError("it has more values beyond the bins than in the outer bins")


def _moments(n: int, mean: float, m2: float, low: float, high: float) -> Moments:
    slack = ROUNDING * max(abs(low), abs(high))
    _require(low - slack <= mean <= high + slack, "its mean is not between min and max")
    # No n values between two ends can lie further apart than half of them at each end.
    most = n * ((high - low) / 2 + slack) ** 2
    _require(0 <= m2 <= most * (1 + ROUNDING), "its m2 does not fit n, min and max")
    return Moments(n, min(max(mean, low), high), m2)


def _tail(count: int, excess: float, furthest: float, side: str, finite: int) -> Tail:
    _require(count <= finite and (count > 0) == (furthest > 0), f"its count {side} the bins does not fit")
    most = count * max(furthest, 0.0)
    least = furthest if count else 0.0
    slack = ROUNDING * most
    _require(least - slack <= excess <= most + slack, f"its sum {side} the bins does not fit its extremes")
    return Tail(count, excess)


def _sparse(counters: Counters) -> Sparse:
    counts = counters.dense()
    index = np.flatnonzero(counts)
    if not index.size:
        return NOTHING  # itself: an equal one would not be left out
    return Sparse(gap=tuple(np.diff(index, prepend=-1).tolist()), count=tuple(counts[index].tolist()))


def _counters(sparse: Sparse, size: int, total: int, what: str) -> Counters:
    gap, count = sparse.gap, sparse.count
    if not gap and not count and not total:
        return Counters(size)
    _require(len(gap) == len(count) <= size, f"its {what} counts are of a wrong length")
    # Each on its own first: a sum of 2,001 large numbers is none that fits.
    gaps = _positive(gap, f"its {what} counts are not in order")
    _require(sum(gap) <= size, f"its {what} counts reach beyond the last bin")
    counts = _positive(count, f"one of its {what} counts is zero or over 2**53")
    if (found := sum(count)) != total:
        raise ValueError(f"its {what} counts make {found}, not {total}")
    return Counters.of(size, np.cumsum(gaps, dtype=np.int64) - 1, counts)


def _positive(numbers: Sequence[int], problem: str) -> npt.NDArray[np.integer]:
    try:
        found = bins.whole(numbers)
    except OverflowError as error:
        raise ValueError(problem) from error
    _require(found.min(initial=1) > 0, problem)
    return found


def _in_range(*counts: int) -> None:
    _require(all(0 <= count <= MAX_COUNT for count in counts), "one of its numbers is negative or over 2**53")


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
