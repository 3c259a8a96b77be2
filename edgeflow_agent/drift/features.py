"""Which numbers and words stand for a model's inputs and outputs.

A column of a table is a feature by itself; of what has more axes, a few cheap statistics per row are. The
same code describes training samples and what a device sees, so both count the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift.baseline import Feature, Source
from edgeflow_agent.drift.bins import Floats
from edgeflow_agent.drift.columns import Column

Array = npt.NDArray[Any]

CHANNELS = (1, 3, 4)
# A table of more columns without names is one long vector: an embedding, not a table.
_MOST_COLUMNS = 64
_MOST_AT_ONCE = 2**18


class Described(msgspec.Struct, frozen=True):
    """One feature of some rows: its values, and how a device computes the same from a request."""

    name: str
    values: Any
    source: Source = Source()


def of_input(name: str, array: Array, *, is_table: bool = False) -> list[Described]:
    """The features of one input, a row for each sample; `is_table` when each column means something."""
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    if array.ndim == 2 and (is_table or 0 < array.shape[1] <= _MOST_COLUMNS):
        return [
            Described(f"{name}.{column}", array[:, column], Source(input=name, column=column))
            for column in range(array.shape[1])
        ]
    return [
        Described(f"{name}.{word}", values, Source(input=name, statistic=word))
        for word, values in input_statistics(array).items()
    ]


def of_outputs(outputs: Mapping[str, Any], labels: Sequence[str]) -> list[Described]:
    """The features of all outputs of some rows; none of those that are no tensors with an axis for rows."""
    arrays = {name: value for name, value in outputs.items() if isinstance(value, np.ndarray) and value.ndim}
    has_class = any(value.ndim == 1 and value.dtype.kind in "OUSib" for value in arrays.values())
    return [
        Described(f"{name}.{word}", values, Source(output=name, statistic=word))
        for name, array in arrays.items()
        for word, values in output_statistics(array, labels).items()
        if not (has_class and word == "class" and array.ndim == 2 and array.dtype.kind == "f")
    ]


class Extraction:
    """Computes the features of a baseline from what models took and gave."""

    def __init__(self, features: Iterable[Feature], labels: Sequence[str]) -> None:
        self.features = tuple(features)
        self._labels = tuple(labels)

    def columns(self, feed: Mapping[str, Any], outputs: Mapping[str, Any]) -> list[Column | None]:
        """The values of each feature, in their order; None for one that these tensors do not have."""
        known: dict[tuple[str, str], Mapping[str, Column]] = {}
        found: list[Column | None] = []
        for feature in self.features:
            source = feature.source
            side, name = ("output", source.output) if source.output else ("input", source.input)
            array = (outputs if source.output else feed).get(name)
            if not isinstance(array, np.ndarray) or array.ndim == 0:
                found.append(None)
            elif source.column is not None:
                found.append(_column(array, source.column))
            else:
                if (side, name) not in known:
                    known[side, name] = (
                        output_statistics(array, self._labels)
                        if source.output
                        else input_statistics(array, only=self._words(name))
                    )
                found.append(known[side, name].get(source.statistic))
        return found

    def _words(self, name: str) -> set[str]:
        return {feature.source.statistic for feature in self.features if feature.source.input == name}


def input_statistics(array: Array, *, only: set[str] | None = None) -> dict[str, Column]:
    """Scalars per row of what is no table: of images those of `image_statistics`, of text its `length`, of
    other numbers `norm` and `mean` (and `length` of the second axis is that of every row, so it is one too).
    `only` names those that are wanted."""
    rows = len(array)
    if rows > 1 and array.size > _MOST_AT_ONCE:
        # In float64 and with all that lies between, a large batch would take many times its memory.
        halves = [input_statistics(half, only=only) for half in (array[: rows // 2], array[rows // 2 :])]
        return {word: np.concatenate([half[word] for half in halves]) for word in halves[0]}
    if array.dtype.kind in "OUS":
        flat = _flat(array)
        return {"length": np.array([sum(_length(item) for item in row) for row in flat], dtype=np.float64)}
    if array.dtype.kind not in "iufb":
        return {}
    channels = [axis for axis in (1, 3) if array.ndim == 4 and array.shape[axis] in CHANNELS]
    if channels and (only is None or not only <= {"norm", "mean", "length"}):
        return dict(image_statistics(array, channels[0]))
    found: dict[str, Column] = {}
    if array.ndim >= 2:
        flat = _flat(np.asarray(array, dtype=np.float64))
        if flat.shape[1]:
            with np.errstate(over="ignore", invalid="ignore"):
                found["norm"] = np.sqrt(np.einsum("ij,ij->i", flat, flat))
                found["mean"] = flat.mean(axis=1)
        found["length"] = np.full(rows, float(array.shape[1]))
    return found


def output_statistics(array: Array, labels: Sequence[str]) -> dict[str, Column]:
    """Scalars per row of an output: `class` of labels and of scores, `top` and `margin` of scores, `value`
    of a single number, `norm` and `mean` of what is longer than any row of scores."""
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim == 1 and flat.dtype.kind in "OUSib":
        return {"class": np.array([_label(value) for value in flat.tolist()], dtype=object)}
    if flat.ndim == 1 and flat.dtype.kind == "f":
        return {"value": flat}
    if flat.ndim == 2 and flat.dtype.kind == "f" and flat.shape[1] > 1:
        best = flat.argmax(axis=1)
        words = [labels[index] if index < len(labels) else str(index) for index in best.tolist()]
        return {"class": np.array(words, dtype=object), **score_statistics(flat)}
    if flat.ndim > 2 and flat.dtype.kind == "f":
        return {
            word: values for word, values in input_statistics(flat, only={"norm"}).items() if word != "length"
        }
    return {}


def image_statistics(batch: Array, channel_axis: int) -> dict[str, Floats]:
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


def score_statistics(scores: Array) -> dict[str, Floats]:
    """Scalars per row of a score for each class: the highest, and its margin over the second."""
    ordered = np.partition(np.asarray(scores, dtype=np.float64), (-2, -1), axis=1)
    return {"top": ordered[:, -1], "margin": ordered[:, -1] - ordered[:, -2]}


def _column(array: Array, column: int) -> Column | None:
    if array.ndim == 1:
        return array if column == 0 else None
    return array[:, column] if array.ndim == 2 and column < array.shape[1] else None


def _flat(array: Array) -> Array:
    """Two axes; of no rows as well, for which numpy cannot tell the second."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes)) else len(str(value))


def _label(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
