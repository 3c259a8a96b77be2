"""Windows of one device, hour or day put together: what one window over all of it would have said.

Counts add up without the baseline that they were counted against, so hours can be merged when it is gone.
Whether the result fits a baseline is for `drift.record.from_record` to say, as of any window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from edgeflow_agent.drift import bins
from edgeflow_agent.drift.moments import Moments
from edgeflow_agent.wire.sketches import NOTHING, CategoricalRecord, NumericRecord, SketchRecord, Sparse

_MAX_COUNT = 2**53
# More cells than any feature has: what reaches further is no window.
_MAX_CELLS = 2**16
# How the figures of devices are put together; all others by their mean over time.
_LARGEST = frozenset({"rss_bytes", "temperature_c", "queue_peak"})
_SMALLEST = frozenset({"memory_free_bytes", "disk_free_bytes", "disk_free_ratio"})


def by_feature(windows: Iterable[Sequence[SketchRecord]]) -> dict[str, list[SketchRecord]]:
    """The records of each feature, in the order in which features first come."""
    found: dict[str, list[SketchRecord]] = {}
    for features in windows:
        for record in features:
            found.setdefault(record.name, []).append(record)
    return found


def merge(records: Sequence[SketchRecord]) -> SketchRecord:
    """One record over all of them, which are of one feature. Raise ValueError when they cannot be merged."""
    first = records[0]
    if len(records) == 1:
        return first
    if any(record.name != first.name or type(record) is not type(first) for record in records):
        raise ValueError("they are of different features")
    if sum(record.n for record in records) > _MAX_COUNT:
        raise ValueError("they have more values than can be counted")
    if isinstance(first, CategoricalRecord):
        return _categorical([record for record in records if isinstance(record, CategoricalRecord)])
    return _numeric([record for record in records if isinstance(record, NumericRecord)])


def _categorical(records: Sequence[CategoricalRecord]) -> CategoricalRecord:
    return CategoricalRecord(
        name=records[0].name,
        n=sum(record.n for record in records),
        missing=sum(record.missing for record in records),
        other=sum(record.other for record in records),
        counts=_added([record.counts for record in records]),
    )


def _numeric(records: Sequence[NumericRecord]) -> NumericRecord:
    head = NumericRecord(
        name=records[0].name,
        n=sum(record.n for record in records),
        missing=sum(record.missing for record in records),
        inf=sum(record.inf for record in records),
    )
    seen = [record for record in records if record.n > record.missing + record.inf]
    if not seen:
        return head
    all_, inner = Moments(), Moments()
    for record in seen:
        n = record.n - record.missing - record.inf
        all_ = all_.merge(Moments(n, record.mean, record.m2))
        mean = record.mean if record.inner_mean is None else record.inner_mean
        m2 = record.m2 if record.inner_m2 is None else record.inner_m2
        inner = inner.merge(Moments(n, mean, m2))
    below, above = sum(record.below for record in seen), sum(record.above for record in seen)
    low, high = min(record.min for record in seen), max(record.max for record in seen)
    merged = msgspec.structs.replace(
        head,
        min=low,
        max=high,
        # Rounding must not bring a mean out of its range.
        mean=min(max(all_.mean, low), high),
        m2=all_.m2,
        inner_mean=inner.mean if below or above else None,
        inner_m2=inner.m2 if below or above else None,
        below=below,
        below_excess=math.fsum(record.below_excess for record in seen),
        above=above,
        above_excess=math.fsum(record.above_excess for record in seen),
        fine=_added([record.fine for record in seen]),
        quantiles=_added([record.quantiles for record in seen]),
        values=_added([record.values for record in seen]),
        points=_added([record.points for record in seen]),
    )
    numbers = (merged.mean, merged.m2, inner.mean, inner.m2, merged.below_excess, merged.above_excess)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("their sums are no numbers")
    return merged


def _added(parts: Sequence[Sparse]) -> Sparse:
    parts = [part for part in parts if part.gap or part.count]
    if len(parts) <= 1:
        return parts[0] if parts else NOTHING
    lengths = [len(part.gap) for part in parts]
    if lengths != [len(part.count) for part in parts]:
        raise ValueError("their counters are of different lengths")
    gaps = np.concatenate([bins.whole(part.gap) for part in parts], dtype=np.int64)
    counts = np.concatenate([bins.whole(part.count) for part in parts], dtype=np.int64)
    if gaps.min() < 1 or gaps.max() > _MAX_CELLS or float(counts.sum(dtype=np.float64)) > _MAX_COUNT:
        raise ValueError("their counters are not in order, or too large")
    places = np.cumsum(gaps)
    ends = np.cumsum(lengths)
    before = np.concatenate(([0], places[ends[:-1] - 1]))
    places -= np.repeat(before, lengths) + 1
    if places.max() >= _MAX_CELLS:
        raise ValueError("their counters reach too far")
    dense = np.zeros(int(places.max()) + 1, dtype=np.int64)
    np.add.at(dense, places, counts)
    index = np.flatnonzero(dense)
    return Sparse(gap=tuple(np.diff(index, prepend=-1).tolist()), count=tuple(dense[index].tolist()))


def counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, added."""
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def histogram(parts: Iterable[Sequence[int]]) -> list[int]:
    """Counts by bucket, added; windows without requests have none."""
    filled = [part for part in parts if part]
    return [sum(column) for column in zip(*filled, strict=True)] if filled else []


def resources(parts: Sequence[tuple[float, Mapping[str, Any]]]) -> dict[str, float]:
    """What a device was like, over windows of so many seconds: peaks stay peaks."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(chain.from_iterable(values for _, values in parts)):
        told = [(max(seconds, 1e-9), values[name]) for seconds, values in parts if name in values]
        if name in _LARGEST:
            found[name] = max(value for _, value in told)
        elif name in _SMALLEST:
            found[name] = min(value for _, value in told)
        else:
            found[name] = sum(s * value for s, value in told) / sum(s for s, _ in told)
    return found
