"""A baseline from the field, for a model that came without one: what its first requests were like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeflow_agent.drift import build, features
from edgeflow_agent.drift.features import Described

# With more, the file would be too large for the request that brings it to the server.
_MOST_FEATURES = 128
# Values of single requests are put together when so many have come: each holds its whole request else.
_MOST_PARTS = 128


class Learner:
    """Collects the features of `wanted` rows; then `baseline` gives the file. Not thread-safe.

    `columns` are the names of the columns of the only input, empty when there are none.
    """

    def __init__(self, wanted: int, *, columns: Sequence[str], labels: Sequence[str]) -> None:
        self._wanted = wanted
        self._columns = tuple(columns)
        self._labels = tuple(labels)
        self._rows = 0
        self._inputs: dict[str, list[Described]] = {}
        self._outputs: dict[str, list[Described]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether enough rows have come."""
        return self._rows >= self._wanted

    def fold(self, feed: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Keep the features of these rows."""
        arrays = {name: value for name, value in feed.items() if isinstance(value, np.ndarray) and value.ndim}
        described = [item for name, array in arrays.items() for item in self._of_input(name, array)]
        given = features.of_outputs(outputs, self._labels)
        _keep(described, self._inputs)
        _keep(given, self._outputs)
        # An output need not have an axis of rows: three hundred boxes of one image are one row.
        self._rows += max((len(item.values) for item in described or given), default=0)

    def baseline(self) -> bytes:
        """The file, as docs/baseline.md describes it."""
        outputs = [_joined(parts) for parts in self._outputs.values()][:_MOST_FEATURES]
        inputs = [_joined(parts) for parts in self._inputs.values()][: _MOST_FEATURES - len(outputs)]
        return build.encode(build.build(inputs, outputs))

    def _of_input(self, name: str, array: Any) -> list[Described]:
        is_table = bool(self._columns) and array.ndim == 2 and array.shape[1] == len(self._columns)
        found = features.of_input(name, array, is_table=is_table)
        if not is_table:
            return found
        return [
            Described(column, item.values, item.source)
            for column, item in zip(self._columns, found, strict=True)
        ]


def _keep(items: Sequence[Described], known: dict[str, list[Described]]) -> None:
    for item in items:
        if item.name not in known and len(known) >= _MOST_FEATURES:
            continue
        parts = known.setdefault(item.name, [])
        parts.append(item)
        if len(parts) > _MOST_PARTS:
            parts[:] = [_joined(parts)]


def _joined(parts: Sequence[Described]) -> Described:
    first = parts[0]
    return Described(first.name, np.concatenate([np.asarray(part.values) for part in parts]), first.source)
