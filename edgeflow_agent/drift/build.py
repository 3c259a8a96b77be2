"""Making a baseline: what a model saw, as counts that a window of telemetry can be held against.

The format is fixed in `docs/baseline.md`: devices count into exactly these bins, and statistics are exact
only while both sides agree, so a change here is a new version of the format. Pure: arrays in, JSON out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift.baseline import (
    CATEGORIES,
    CONFIG,
    CONFIG_SHA256,
    DISCRETE_VALUES,
    FORMAT,
    LARGEST,
    MARGIN,
    QUANTILE_BINS,
    REFERENCE_VALUES,
    Source,
)
from edgeflow_agent.drift.bins import FINE_BINS, Floats, distinct, quantiles
from edgeflow_agent.drift.columns import is_missing, text
from edgeflow_agent.drift.features import Described


def build(inputs: Iterable[Described], outputs: Iterable[Described] = ()) -> dict[str, Any]:
    """The baseline of these columns, as plain data."""
    return {
        "format": FORMAT,
        "config": CONFIG,
        "config_sha256": CONFIG_SHA256,
        "inputs": [describe(item) for item in inputs],
        "outputs": [describe(item) for item in outputs],
    }


def encode(baseline: Mapping[str, Any]) -> bytes:
    """The same baseline always gives the same bytes."""
    text = json.dumps(baseline, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode() + b"\n"


def describe(feature: Described) -> dict[str, Any]:
    """The entry of one column: numeric where its values are numbers, categorical otherwise."""
    values = np.asarray(feature.values)
    if values.ndim != 1:
        raise ValueError(
            f"the feature {feature.name!r} must be one column, not an array of {values.ndim} axes"
        )
    numbers = _numbers(values)
    head: dict[str, Any] = {"name": feature.name, "source": _source(feature.source), "n": int(values.size)}
    return head | (_categorical(values) if numbers is None else _numeric(numbers))


def fine_range(low: float, high: float) -> tuple[float, float]:
    """Where the fine bins begin and end for values from `low` to `high`."""
    width = high - low
    if width <= 0 or not math.isfinite(FINE_BINS / (width * (1 + 2 * MARGIN))):
        width = max(abs(low), abs(high), 1.0)
    return low - MARGIN * width, high + MARGIN * width


def fine_index(values: Floats, low: float, high: float) -> npt.NDArray[np.int64]:
    """The fine bin of each value from `low` to `high`: the floor of its distance in bin widths."""
    scaled = np.floor((values - low) * (FINE_BINS / (high - low)))
    return np.clip(scaled, 0, FINE_BINS - 1).astype(np.int64)


def _source(source: Source) -> dict[str, Any]:
    known = {"input": source.input, "output": source.output, "statistic": source.statistic}
    told: dict[str, Any] = {key: value for key, value in known.items() if value}
    return told if source.column is None else told | {"column": source.column}


def _numbers(values: npt.NDArray[Any]) -> Floats | None:
    """Float64 values with NaN for what is missing, or None when the column is no numeric one."""
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    if values.dtype.kind != "O":
        return None
    present = [value for value in values if not is_missing(value)]
    if not present or not all(
        isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        for value in present
    ):
        return None
    return np.array([math.nan if is_missing(value) else _float(value) for value in values], dtype=np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _numeric(values: Floats) -> dict[str, Any]:
    missing = np.isnan(values)
    infinite = np.abs(values) > LARGEST
    finite = np.sort(values[~missing & ~infinite])
    entry: dict[str, Any] = {
        "kind": "numeric",
        "missing": int(missing.sum()),
        "inf": int(infinite.sum()),
    }
    if finite.size == 0:
        return entry
    finite += 0.0  # no negative zeros: they would be written differently
    low, high = float(finite[0]), float(finite[-1])
    entry |= {"mean": float(finite.mean()), "std": float(finite.std()), "min": low, "max": high}
    edges = distinct(quantiles(finite, np.linspace(0, 1, QUANTILE_BINS + 1)))
    counts = np.histogram(finite, edges)[0] if edges.size > 1 else np.array([finite.size])
    entry["quantiles"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    begin, end = fine_range(low, high)
    index, count = np.unique(fine_index(finite, begin, end), return_counts=True)
    entry["fine"] = {
        "low": begin,
        "high": end,
        "bins": FINE_BINS,
        "index": index.tolist(),
        "count": count.tolist(),
    }
    single, count = np.unique(finite, return_counts=True)
    if single.size <= DISCRETE_VALUES:
        entry["discrete"] = {"value": single.tolist(), "count": count.tolist()}
    if finite.size <= REFERENCE_VALUES:
        entry["reference"] = finite.tolist()
    return entry


def _categorical(values: npt.NDArray[Any]) -> dict[str, Any]:
    missing = [is_missing(value) for value in values]
    present = [text(value) for value, absent in zip(values, missing, strict=True) if not absent]
    ordered = sorted(Counter(present).items(), key=lambda item: (-item[1], item[0]))
    kept = ordered[:CATEGORIES]
    return {
        "kind": "categorical",
        "missing": sum(missing),
        "categories": {"value": [name for name, _ in kept], "count": [count for _, count in kept]},
        "other": sum(count for _, count in ordered[CATEGORIES:]),
    }
