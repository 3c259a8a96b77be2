"""What a model saw in training, as counts that a window of telemetry can be held against.

The format is fixed in `docs/baseline.md`: devices count into exactly these bins, and statistics are exact
only while both sides agree, so a change here is a new version of the format. Pure: arrays in, JSON out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
)
from edgeflow_agent.drift.bins import FINE_BINS, Floats


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of samples. `source` says how a device computes the same number from a request:
    `{"input": name, "column": index}`, `{"input": name, "statistic": word}` or
    `{"output": name, "statistic": word}`."""

    name: str
    values: Any
    source: Mapping[str, str | int] = field(default_factory=dict)


def build(inputs: Iterable[Feature], outputs: Iterable[Feature] = ()) -> dict[str, Any]:
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


def describe(feature: Feature) -> dict[str, Any]:
    """The entry of one column: numeric where its values are numbers, categorical otherwise."""
    values = np.asarray(feature.values)
    if values.ndim != 1:
        raise ValueError(
            f"the feature {feature.name!r} must be one column, not an array of {values.ndim} axes"
        )
    numbers = _numbers(values)
    head: dict[str, Any] = {"name": feature.name, "source": dict(feature.source), "n": int(values.size)}
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


def image_statistics(batch: npt.NDArray[Any], channel_axis: int) -> dict[str, Floats]:
    """Scalars per image of a batch of four axes: mean and std of each channel, and one sharpness.

    Sharpness is the variance of the four-neighbour Laplacian of the mean over channels.
    """
    images = np.moveaxis(np.asarray(batch, dtype=np.float64), channel_axis, 1)
    scalars: dict[str, Floats] = {}
    for channel in range(images.shape[1]):
        plane = images[:, channel]
        scalars[f"mean.{channel}"] = plane.mean(axis=(1, 2))
        scalars[f"std.{channel}"] = plane.std(axis=(1, 2))
    grey = images.mean(axis=1)
    if min(grey.shape[1:]) >= 3:
        middle = grey[:, 1:-1, 1:-1]
        around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
        scalars["sharpness"] = (around - 4 * middle).var(axis=(1, 2))
    return scalars


def score_statistics(scores: npt.NDArray[Any]) -> dict[str, Floats]:
    """Scalars per row of a score for each class: the highest, and its margin over the second."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=1)
    return {"top": ordered[:, -1], "margin": ordered[:, -1] - ordered[:, -2]}


def _numbers(values: npt.NDArray[Any]) -> Floats | None:
    """Float64 values with NaN for what is missing, or None when the column is no numeric one."""
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    if values.dtype.kind != "O":
        return None
    present = [value for value in values if not _missing(value)]
    if not present or not all(
        isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        for value in present
    ):
        return None
    return np.array([math.nan if _missing(value) else _float(value) for value in values], dtype=np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _missing(value: Any) -> bool:
    # NaN, NaT and pandas' NA differ from themselves, or refuse to say.
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:
        return True


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
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, QUANTILE_BINS + 1)))
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
    distinct, count = np.unique(finite, return_counts=True)
    if distinct.size <= DISCRETE_VALUES:
        entry["discrete"] = {"value": distinct.tolist(), "count": count.tolist()}
    if finite.size <= REFERENCE_VALUES:
        entry["reference"] = finite.tolist()
    return entry


def _categorical(values: npt.NDArray[Any]) -> dict[str, Any]:
    missing = [_missing(value) for value in values]
    present = [_text(value) for value, absent in zip(values, missing, strict=True) if not absent]
    ordered = sorted(Counter(present).items(), key=lambda item: (-item[1], item[0]))
    kept = ordered[:CATEGORIES]
    return {
        "kind": "categorical",
        "missing": sum(missing),
        "categories": {"value": [name for name, _ in kept], "count": [count for _, count in kept]},
        "other": sum(count for _, count in ordered[CATEGORIES:]),
    }


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    # A lone surrogate cannot be written as UTF-8.
    return str(value).encode("utf-8", "replace").decode()
