"""Reading a baseline file.

It travels with a model, so nothing in it is believed: whoever holds a `Baseline` that was read here holds
arrays whose lengths, order and sums fit together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
import numpy as np

from edgeflow_agent import errors, typed
from edgeflow_agent.drift.baseline import (
    CATEGORIES,
    CONFIG,
    CONFIG_SHA256,
    DISCRETE_VALUES,
    FORMAT,
    LARGEST,
    QUANTILE_BINS,
    REFERENCE_VALUES,
    ROUNDING,
    Baseline,
    Categorical,
    Distribution,
    Feature,
    Numeric,
    Source,
)
from edgeflow_agent.drift.bins import FINE_BINS, Floats, Ints, distinct
from edgeflow_agent.wire.documents import Count, Text

Array = TypeVar("Array", Floats, Ints)

MAX_BYTES = 64 * 2**20
MAX_FEATURES = 4096


class _Head(msgspec.Struct):
    format: int


class _Quantiles(msgspec.Struct):
    edges: Annotated[list[float], msgspec.Meta(min_length=1, max_length=QUANTILE_BINS + 1)]
    counts: Annotated[list[Count], msgspec.Meta(max_length=QUANTILE_BINS)]


class _Fine(msgspec.Struct):
    low: float
    high: float
    bins: int
    index: Annotated[list[Count], msgspec.Meta(max_length=FINE_BINS)]
    count: Annotated[list[Count], msgspec.Meta(max_length=FINE_BINS)]


class _Discrete(msgspec.Struct):
    value: Annotated[list[float], msgspec.Meta(min_length=1, max_length=DISCRETE_VALUES)]
    count: Annotated[list[Count], msgspec.Meta(max_length=DISCRETE_VALUES)]


class _Categories(msgspec.Struct):
    value: Annotated[list[Text], msgspec.Meta(max_length=CATEGORIES)]
    count: Annotated[list[Count], msgspec.Meta(max_length=CATEGORIES)]


class _Numeric(msgspec.Struct, tag_field="kind", tag="numeric", kw_only=True):
    name: Text
    n: Count
    missing: Count
    inf: Count
    source: Source = Source()
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    quantiles: _Quantiles | None = None
    fine: _Fine | None = None
    discrete: _Discrete | None = None
    reference: Annotated[list[float], msgspec.Meta(min_length=1, max_length=REFERENCE_VALUES)] | None = None


class _Categorical(msgspec.Struct, tag_field="kind", tag="categorical", kw_only=True):
    name: Text
    n: Count
    missing: Count
    categories: _Categories
    other: Count
    source: Source = Source()


_Features = Annotated[list[_Numeric | _Categorical], msgspec.Meta(max_length=MAX_FEATURES)]


class _File(msgspec.Struct):
    config: dict[str, float]
    config_sha256: str
    inputs: _Features
    outputs: _Features


def parse(content: bytes) -> Baseline:
    """The baseline of a file. Raise ContractError that names the feature and says what is wrong with it."""
    if len(content) > MAX_BYTES:
        raise _wrong(f"it has {len(content)} bytes, at most {MAX_BYTES} are allowed", reason="too_large")
    try:
        # First the format: a newer one need not look like this one at all.
        found = typed.read(_Head, content).format
        if found != FORMAT:
            raise _wrong(f"it has format {found}, and this release reads {FORMAT}: update it")
        file = typed.read(_File, content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _wrong(f"it cannot be read: {error}") from error
    if file.config != CONFIG or file.config_sha256 != CONFIG_SHA256:
        raise _wrong("its config is not the one of format 1, so its bins are not the ones counted here")
    entries = [*file.inputs, *file.outputs]
    if len(entries) > MAX_FEATURES:
        raise _wrong(f"it has {len(entries)} features, at most {MAX_FEATURES} are allowed")
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _wrong(f"it has two features {twice[:100]!r}")
    return Baseline(
        digest=hashlib.sha256(content).hexdigest(),
        inputs=tuple(_feature(entry) for entry in file.inputs),
        outputs=tuple(_feature(entry) for entry in file.outputs),
    )


def _feature(entry: _Numeric | _Categorical) -> Feature:
    try:
        return _numeric(entry) if isinstance(entry, _Numeric) else _categorical(entry)
    except ValueError as error:
        raise _wrong(f"its feature {entry.name[:100]!r}: {error}") from error


def _numeric(entry: _Numeric) -> Numeric:
    n = entry.n - entry.missing - entry.inf
    _require(n >= 0, "it has more missing and infinite values than values")
    return Numeric(
        name=entry.name,
        source=entry.source,
        n=entry.n,
        missing=entry.missing,
        inf=entry.inf,
        distribution=_distribution(entry, n),
    )


def _distribution(entry: _Numeric, n: int) -> Distribution | None:
    mean, std, low, high = entry.mean, entry.std, entry.min, entry.max
    quantiles, fine = entry.quantiles, entry.fine
    parts = (mean, std, low, high, quantiles, fine)
    if n == 0:
        _require(
            all(part is None for part in (*parts, entry.discrete, entry.reference)),
            "it describes values, but has none that is finite",
        )
        return None
    if mean is None or std is None or low is None or high is None or quantiles is None or fine is None:
        raise ValueError("one of mean, std, min, max, quantiles and fine is left out")
    slack = ROUNDING * max(abs(low), abs(high))
    _require(-LARGEST <= low <= high <= LARGEST, "min and max are out of order or beyond 1e100")
    _require(low - slack <= mean <= high + slack, "its mean is not between min and max")
    _require(0 <= std <= (high - low) / 2 + slack, "its std does not fit min and max")
    edges = _increasing(quantiles.edges, "quantile edges")
    _require(edges[0] == low and edges[-1] == high, "its quantile edges do not reach from min to max")
    _require(
        fine.bins == FINE_BINS and fine.low < fine.high and math.isfinite(FINE_BINS / (fine.high - fine.low)),
        f"its fine bins are not {FINE_BINS} of a width",
    )
    _require(fine.low <= low and high <= fine.high, "its fine bins do not reach from min to max")
    values, value_counts = _array([]), _counts([], 0, 0, "")
    if entry.discrete is not None:
        values = _increasing(entry.discrete.value, "discrete values")
        value_counts = _counts(entry.discrete.count, values.size, n, "discrete")
        _require(values[0] == low and values[-1] == high, "its discrete values do not reach from min to max")
    reference = _array([])
    if entry.reference is not None:
        reference = _array(entry.reference)
        _require(len(reference) == n, f"it has {len(reference)} reference values of {n}")
        _require(bool((np.diff(reference) >= 0).all()), "its reference values are not sorted")
        _require(reference[0] == low and reference[-1] == high, "its reference values miss min or max")
    return Distribution(
        n=n,
        mean=mean,
        std=std,
        min=low,
        max=high,
        edges=edges,
        counts=_counts(quantiles.counts, max(edges.size - 1, 1), n, "quantile"),
        fine_low=fine.low,
        fine_high=fine.high,
        fine=_fine(fine, n),
        values=values,
        value_counts=value_counts,
        reference=reference,
        points=_read_only(distinct(reference)),
    )


def _fine(fine: _Fine, n: int) -> Ints:
    pairs = list(zip(fine.index, fine.index[1:], strict=False))
    _require(len(fine.index) == len(fine.count), "its fine bins have another number of counts")
    _require(all(one < two for one, two in pairs), "its fine bins are not sorted")
    _require(not fine.index or fine.index[-1] < FINE_BINS, f"it has a fine bin beyond {FINE_BINS}")
    counts = np.zeros(FINE_BINS, dtype=np.int64)
    counts[fine.index] = _counts(fine.count, len(fine.index), n, "fine")
    return _read_only(counts)


def _categorical(entry: _Categorical) -> Categorical:
    n = entry.n - entry.missing
    _require(n >= 0, "it has more missing values than values")
    _require(0 <= entry.other <= n, "it has more other values than values")
    categories = tuple(entry.categories.value)
    index = {name: place for place, name in enumerate(categories)}
    _require(len(index) == len(categories), "it lists a category twice")
    return Categorical(
        name=entry.name,
        source=entry.source,
        n=entry.n,
        missing=entry.missing,
        categories=categories,
        counts=_counts(entry.categories.count, len(categories), n - entry.other, "category"),
        other=entry.other,
        index=index,
    )


def _increasing(numbers: Sequence[float], what: str) -> Floats:
    array = _array(numbers)
    _require(bool((np.diff(array) > 0).all()), f"its {what} are not sorted and distinct")
    return array


def _counts(numbers: Sequence[int], size: int, total: int, what: str) -> Ints:
    _require(len(numbers) == size, f"it has {len(numbers)} {what} counts, not {size}")
    _require(sum(numbers) == total, f"its {what} counts make {sum(numbers)}, not {total}")
    return _read_only(np.array(numbers, dtype=np.int64))


def _array(numbers: Sequence[float]) -> Floats:
    array = np.array(numbers, dtype=np.float64)
    _require(bool(np.isfinite(array).all()), "it has a number that is not finite")
    return _read_only(array)


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _wrong(message: str, *, reason: str = "baseline") -> errors.ContractError:
    return errors.ContractError(f"the baseline is refused: {message}", reason=reason)
