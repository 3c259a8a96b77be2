"""Windows from devices that nobody vouches for, many of one feature at once.

What a device says about a window is checked against itself and against the baseline before anything is
computed from it: afterwards every sum of counts is the number of values, and every number is finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeflow_agent.drift import moments
from edgeflow_agent.drift.baseline import LARGEST, ROUNDING, Categorical, Distribution, Feature, Numeric
from edgeflow_agent.drift.bins import FINE_BINS, Floats, Ints, distinct, quantile_cell_count
from edgeflow_agent.drift.measures import Bools
from edgeflow_agent.drift.sketch import cells_of
from edgeflow_agent.drift.sparse import MAX_COUNT, OUT_OF_RANGE, WRONG_LENGTH, Flatten, Problems
from edgeflow_agent.drift.stack import CategoricalStack, NumericStack, Stack

_CELLS = {"fine": "fine", "quantiles": "quantile", "values": "value", "points": "point"}
_REALS = ("min", "max", "mean", "m2", "inner_mean", "inner_m2", "below_excess", "above_excess")
_NEGATIVE = "one of its numbers is negative or over 2**53"


def read(
    feature: Feature, records: Sequence[Any], rows: Ints, count: int, flatten: Flatten
) -> tuple[Stack | None, Problems]:
    """One window for each of so many rows, over all records that belong to it. With a problem in any record
    there is none, but what is wrong: of each record the first thing that was found.

    Records are those of `wire.sketches`, or have the same fields: `flatten` knows their counters.
    """
    if isinstance(feature, Numeric):
        return _Numbers(feature, records, rows, count, flatten).stack()
    return _Words(feature, records, rows, count, flatten).stack()


class _Reader:
    """What numbers and words have in common."""

    def __init__(
        self, feature: Feature, records: Sequence[Any], rows: Ints, count: int, flatten: Flatten
    ) -> None:
        self.problems: Problems = {}
        self.records = records
        self.rows = rows
        self.count = count
        # Whether no row has two records.
        self.is_alone = len(records) == distinct(rows).size
        self.flatten = flatten
        kind = "numeric" if isinstance(feature, Numeric) else "categorical"
        for number, record in enumerate(records):
            if record.name != feature.name:
                self.problems[number] = f"it is of {record.name[:100]!r}"
            elif record.__struct_config__.tag != kind:
                self.problems[number] = (
                    "it is of words, and the baseline has numbers"
                    if kind == "numeric"
                    else "it is of numbers, and the baseline has words"
                )

    def require(self, holds: Bools, problem: str | Callable[[int], str]) -> None:
        """Note what is wrong with the records of which this does not hold."""
        if not holds.all():
            for number in np.flatnonzero(~holds).tolist():
                self.problems.setdefault(number, problem if isinstance(problem, str) else problem(number))

    def whole(self, name: str) -> Ints:
        """A field of counts."""
        said = [getattr(record, name) for record in self.records]
        try:
            found = np.array(said, dtype=np.int64)
        except OverflowError:
            found = np.array([number if abs(number) <= MAX_COUNT else -1 for number in said], dtype=np.int64)
        self.require((found >= 0) & (found <= MAX_COUNT), _NEGATIVE)
        return found

    def real(self, name: str) -> Floats:
        """A field of numbers; NaN where it is left out."""
        return np.array([getattr(record, name) for record in self.records], dtype=np.float64)

    def total(self, numbers: Ints) -> Ints:
        """The sums of each row."""
        return np.bincount(self.rows, weights=numbers, minlength=self.count).astype(np.int64)

    def countable(self, n: Ints) -> None:
        """All values of a row must be fewer than can be counted exactly."""
        sums = np.bincount(self.rows, weights=n, minlength=self.count)
        self.require((sums <= MAX_COUNT)[self.rows], "together they have more values than can be counted")


class _Cells:
    """The counters of one kind of cells, of all records."""

    def __init__(self, reader: _Reader, field: str, what: str, size: int, totals: Ints) -> None:
        self._reader = reader
        self._size = size
        parts = [getattr(record, field) for record in reader.records]
        self._flat, problems = reader.flatten(parts)
        for number, problem in problems.items():
            reader.problems.setdefault(number, f"its {what} counts {problem}")
        if not reader.problems:
            self._check(what, totals)

    def _check(self, what: str, totals: Ints) -> None:
        reader, flat, size = self._reader, self._flat, self._size
        reader.require(flat.lengths <= size, f"its {what} counts {WRONG_LENGTH}")
        if flat.gaps.size:
            # Each on its own first: a sum of 2,001 large numbers is none that fits.
            if flat.gaps.min() < 1:
                reader.require(self._all(flat.gaps >= 1), f"its {what} counts are not in order")
            if flat.gaps.max() > size:
                reader.require(self._all(flat.gaps <= size), f"its {what} counts reach beyond the last bin")
            if flat.counts.min() < 1 or flat.counts.max() > MAX_COUNT:
                fits = (flat.counts >= 1) & (flat.counts <= MAX_COUNT)
                reader.require(self._all(fits), f"its {what} counts {OUT_OF_RANGE}")
        if reader.problems:
            return
        self._ends = np.cumsum(flat.lengths)
        self._starts = self._ends - flat.lengths
        self._used = flat.lengths > 0
        # How far each counter lies behind the first cell of the first record: records one after the other.
        self._reach = np.cumsum(flat.gaps, dtype=np.int64)
        self._before = np.where(self._starts > 0, self._of_ends(self._reach, self._starts - 1), 0)
        # The first and the last cell of each record that have counted something, -1 where none has.
        self.first = self._of_ends(flat.gaps, self._starts) - 1
        self.last = np.where(self._used, self._of_ends(self._reach, self._ends - 1) - self._before, 0) - 1
        reader.require(self.last < size, f"its {what} counts reach beyond the last bin")
        found = np.zeros(totals.size, dtype=np.int64)
        if flat.counts.size:
            # A sum beyond 2**63 comes back as a negative number, as no total is.
            sums = np.add.reduceat(flat.counts, self._starts[self._used], dtype=np.int64)
            found[self._used] = sums
        reader.require(
            found == totals, lambda number: f"its {what} counts make {found[number]}, not {totals[number]}"
        )

    def _all(self, holds: Bools) -> Bools:
        """Of which records this holds for all counters."""
        wrong = np.repeat(np.arange(self._flat.lengths.size), self._flat.lengths)[~holds]
        found = np.ones(self._flat.lengths.size, dtype=np.bool_)
        found[wrong] = False
        return found

    def _of_ends(self, numbers: Any, where: Ints) -> Ints:
        """A number for each record that has counters, 0 for the others."""
        found = np.zeros(where.size, dtype=np.int64)
        found[self._used] = numbers[where[self._used]]
        return found

    @property
    def first_count(self) -> Ints:
        """What the first cell that is not empty has counted, of each record."""
        return self._of_ends(self._flat.counts, self._starts)

    @property
    def last_count(self) -> Ints:
        """What the last of them has counted."""
        return self._of_ends(self._flat.counts, self._ends - 1)

    def counted(self, cells: Ints) -> Bools:
        """Of which records that cell has counted something."""
        wanted = np.repeat(cells + self._before + 1, self._flat.lengths)
        owner = np.repeat(np.arange(cells.size), self._flat.lengths)
        found = np.zeros(cells.size, dtype=np.bool_)
        found[owner[self._reach == wanted]] = True
        return found

    def dense(self) -> Ints:
        """All counters of each row."""
        reader, size = self._reader, self._size
        if not size:
            return np.zeros((reader.count, 0), dtype=np.int64)
        at = self._reach + np.repeat(reader.rows * size - self._before - 1, self._flat.lengths)
        if reader.is_alone:
            found = np.zeros(reader.count * size, dtype=np.int64)
            found[at] = self._flat.counts
        else:
            sums = np.bincount(at, weights=self._flat.counts, minlength=reader.count * size)
            found = sums.astype(np.int64)
        return found.reshape(reader.count, size)


class _Words(_Reader):
    def __init__(
        self, feature: Categorical, records: Sequence[Any], rows: Ints, count: int, flatten: Flatten
    ) -> None:
        super().__init__(feature, records, rows, count, flatten)
        self._feature = feature

    def stack(self) -> tuple[CategoricalStack | None, Problems]:
        """All windows."""
        if self.problems:
            return None, self.problems
        n, missing, other = self.whole("n"), self.whole("missing"), self.whole("other")
        self.require(other <= n - missing, "it has more missing and other values than values")
        self.countable(n)
        cells = _Cells(self, "counts", "category", len(self._feature.categories), n - missing - other)
        if self.problems:
            return None, self.problems
        return CategoricalStack(
            feature=self._feature,
            n=self.total(n),
            missing=self.total(missing),
            other=self.total(other),
            counts=cells.dense(),
        ), self.problems


class _Numbers(_Reader):
    def __init__(
        self, feature: Numeric, records: Sequence[Any], rows: Ints, count: int, flatten: Flatten
    ) -> None:
        super().__init__(feature, records, rows, count, flatten)
        self._feature = feature

    def stack(self) -> tuple[NumericStack | None, Problems]:
        """All windows."""
        if self.problems:
            return None, self.problems
        counts = {name: self.whole(name) for name in ("n", "missing", "inf", "below", "above")}
        finite = counts["n"] - counts["missing"] - counts["inf"]
        self.require(finite >= 0, "it has more missing and infinite values than values")
        self.countable(counts["n"])
        seen = self._feature.distribution
        cells = {
            field: _Cells(self, field, what, size, finite if size else finite * 0)
            for (field, what), size in zip(_CELLS.items(), _sizes(seen), strict=True)
        }
        if self.problems:
            return None, self.problems
        reals = {name: self.real(name) for name in _REALS}
        has = finite > 0
        self._check_nothing(has, counts, reals)
        with np.errstate(over="ignore", invalid="ignore"):
            self._check(has, finite, counts, reals, seen)
        if not self.problems and seen is not None:
            self._check_outer(np.flatnonzero(has), counts, reals, cells, seen)
        if self.problems:
            return None, self.problems
        arrays: dict[str, Any] = {name: self.total(numbers) for name, numbers in counts.items()}
        arrays |= self._together(finite, reals)
        arrays |= {field: found.dense() for field, found in cells.items()}
        return NumericStack(feature=self._feature, **arrays), self.problems

    def _check_nothing(self, has: Bools, counts: dict[str, Ints], reals: dict[str, Floats]) -> None:
        """A window without finite values says nothing about them."""
        if has.all():
            return
        inner = {"inner_mean", "inner_m2"}
        told = [~np.isnan(item) if name in inner else item != 0 for name, item in reals.items()]
        told += [counts["below"] != 0, counts["above"] != 0]
        self.require(has | ~np.logical_or.reduce(told), "it describes values, but has none that is finite")

    def _check(
        self,
        has: Bools,
        finite: Ints,
        counts: dict[str, Ints],
        reals: dict[str, Floats],
        seen: Distribution | None,
    ) -> None:
        """Sums and extremes fit each other. Means are brought into their range, and what is left out because
        all values lie in the bins is put in."""
        low, high, below, above = reals["min"], reals["max"], counts["below"], counts["above"]
        self.require(
            ~has | ((low >= -LARGEST) & (low <= high) & (high <= LARGEST)),
            "min and max are out of order or beyond 1e100",
        )
        reals["mean"] = self._moments(has, finite, reals["mean"], reals["m2"], low, high)
        moved = (below > 0) | (above > 0)
        if seen is None:
            self.require(~moved, "it has values beyond bins that are not there")
            reals["inner_mean"], reals["inner_m2"] = np.zeros(has.size), np.zeros(has.size)
            return
        self._tail(has, finite, below, reals["below_excess"], seen.fine_low - low, "below")
        self._tail(has, finite, above, reals["above_excess"], high - seen.fine_high, "above")
        if moved.any():
            told = ~np.isnan(reals["inner_mean"]) & ~np.isnan(reals["inner_m2"])
            self.require(~moved | told, "it has values beyond the bins, but no inner mean and m2")
            ends = low.clip(seen.fine_low, seen.fine_high), high.clip(seen.fine_low, seen.fine_high)
            reals["inner_mean"] = self._moments(moved, finite, reals["inner_mean"], reals["inner_m2"], *ends)
        reals["inner_mean"] = np.where(moved, reals["inner_mean"], reals["mean"])
        reals["inner_m2"] = np.where(moved, reals["inner_m2"], reals["m2"])

    def _moments(self, which: Bools, n: Ints, mean: Floats, m2: Floats, low: Floats, high: Floats) -> Floats:
        slack = ROUNDING * np.maximum(np.abs(low), np.abs(high))
        between = (low - slack <= mean) & (mean <= high + slack)
        self.require(~which | between, "its mean is not between min and max")
        # No n values between two ends can lie further apart than half of them at each end.
        most = n * ((high - low) / 2 + slack) ** 2
        self.require(
            ~which | ((m2 >= 0) & (m2 <= most * (1 + ROUNDING))), "its m2 does not fit n, min and max"
        )
        return np.where(which, np.minimum(np.maximum(mean, low), high), mean)

    def _tail(
        self, has: Bools, finite: Ints, count: Ints, excess: Floats, furthest: Floats, side: str
    ) -> None:
        self.require(
            ~has | ((count <= finite) & ((count > 0) == (furthest > 0))),
            f"its count {side} the bins does not fit",
        )
        most = count * np.maximum(furthest, 0.0)
        least = np.where(count > 0, furthest, 0.0)
        fits = (least - ROUNDING * most <= excess) & (excess <= most + ROUNDING * most)
        self.require(~has | fits, f"its sum {side} the bins does not fit its extremes")

    def _check_outer(
        self,
        rows: Ints,
        counts: dict[str, Ints],
        reals: dict[str, Floats],
        cells: dict[str, _Cells],
        seen: Distribution,
    ) -> None:
        """The first and the last value lie in the first and the last bin that is not empty."""
        ends = np.concatenate((reals["min"][rows], reals["max"][rows]))
        fine, quantiles, values, points = (place.reshape(2, -1) for place in cells_of(ends, seen))
        fits = np.ones(self.rows.size, dtype=np.bool_)
        for field, (first, last) in (("fine", fine), ("quantiles", quantiles), ("points", points)):
            if first.size:
                mine = cells[field]
                fits[rows] &= (mine.first[rows] == first) & (mine.last[rows] == last)
        self.require(fits, "its min and max are not in its outer bins")
        if seen.values.size:
            # The last of these counts all that is none of the values, wherever it lies.
            fits = np.ones(self.rows.size, dtype=np.bool_)
            for place in values:
                cell = np.zeros(self.rows.size, dtype=np.int64)
                cell[rows] = place
                fits[rows] &= cells["values"].counted(cell)[rows]
            self.require(fits, "its min or max is in no value that was counted")
        outer = np.where(cells["fine"].first == 0, cells["fine"].first_count, 0)
        last = np.where(cells["fine"].last == FINE_BINS - 1, cells["fine"].last_count, 0)
        self.require(
            (counts["below"] <= outer) & (counts["above"] <= last),
            "it has more values beyond the bins than in the outer bins",
        )

    def _together(self, finite: Ints, reals: dict[str, Floats]) -> dict[str, Floats]:
        rows, count, has = self.rows, self.count, finite > 0
        low, high = np.full(count, math.inf), np.full(count, -math.inf)
        np.minimum.at(low, rows[has], reals["min"][has])
        np.maximum.at(high, rows[has], reals["max"][has])
        mean, m2 = moments.together(finite, reals["mean"], reals["m2"], rows, count)
        inner_mean, inner_m2 = moments.together(finite, reals["inner_mean"], reals["inner_m2"], rows, count)
        return {
            "min": low,
            "max": high,
            # Rounding must not bring a mean out of its range.
            "mean": np.where(low <= high, np.minimum(np.maximum(mean, low), high), 0.0),
            "m2": m2,
            "inner_mean": inner_mean,
            "inner_m2": inner_m2,
            "below_excess": np.bincount(rows, weights=reals["below_excess"], minlength=count),
            "above_excess": np.bincount(rows, weights=reals["above_excess"], minlength=count),
        }


def _sizes(seen: Distribution | None) -> tuple[int, int, int, int]:
    if seen is None:
        return 0, 0, 0, 0
    return (
        FINE_BINS,
        quantile_cell_count(seen.edges),
        seen.values.size + 1 if seen.values.size else 0,
        2 * seen.points.size + 1 if seen.points.size else 0,
    )
