"""Steps that make words of scores."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeflow_agent import errors
from edgeflow_agent.steps.flow import After, Array, Feed, Form

Floats = npt.NDArray[np.float64]
Activation = Literal["none", "softmax", "sigmoid"]


class Labels(After, tag="labels", frozen=True, kw_only=True):
    """The best class of each row with its confidence.

    Below `threshold` (or its own entry of `thresholds`) the label is what `below` says instead: one word for
    all, or one for each label; null without it. Then `rename` gives labels other names.
    """

    output: str
    name: str = ""
    labels: tuple[str, ...] = ()
    activation: Activation = "none"
    threshold: float | None = None
    thresholds: dict[str, float] = {}  # noqa: RUF012 - msgspec copies it
    below: str | dict[str, str] | None = None
    rename: dict[str, str] = {}  # noqa: RUF012

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        named = {*self.thresholds, *(self.below if isinstance(self.below, dict) else ())}
        if odd := sorted(named - set(self.labels)):
            raise ValueError(f"{odd[0]!r} is none of the labels")

    def fit(self, outputs: dict[str, Form]) -> None:
        _fit_classes(outputs, self.output, len(self.labels))
        replace(outputs, self.output, self.name)

    def run(self, answer: dict[str, Any], feed: Feed) -> None:
        scores = activated(classes(answer, self.output, len(self.labels)), self.activation)
        best = [self._named(row, int(row.argmax())) for row in scores]
        put(answer, self.output, self.name, unwrapped(best, feed))

    def _named(self, row: Floats, index: int) -> dict[str, Any]:
        confidence = float(row[index])
        label: str | None = label_of(self.labels, index)
        needed = self.thresholds.get(str(label), self.threshold)
        if needed is not None and not confidence >= needed:
            label = self.below.get(str(label)) if isinstance(self.below, dict) else self.below
        if label is not None:
            label = self.rename.get(label, label)
        return {"label": label, "index": index, "confidence": confidence}


class TopK(After, tag="top_k", frozen=True, kw_only=True):
    """The best `k` classes of each row, the best first; those below `threshold` are left out."""

    output: str
    name: str = ""
    k: int = 5
    labels: tuple[str, ...] = ()
    activation: Activation = "none"
    threshold: float | None = None

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        if self.k < 1:
            raise ValueError("k must be at least 1")

    def fit(self, outputs: dict[str, Form]) -> None:
        _fit_classes(outputs, self.output, len(self.labels))
        replace(outputs, self.output, self.name)

    def run(self, answer: dict[str, Any], feed: Feed) -> None:
        scores = activated(classes(answer, self.output, len(self.labels)), self.activation)
        put(answer, self.output, self.name, unwrapped([self._best(row) for row in scores], feed))

    def _best(self, row: Floats) -> list[dict[str, Any]]:
        order = np.argsort(-row, kind="stable")[: self.k].tolist()
        return [
            {"label": label_of(self.labels, index), "index": index, "confidence": float(row[index])}
            for index in order
            if self.threshold is None or row[index] >= self.threshold
        ]


class Threshold(After, tag="threshold", frozen=True, kw_only=True):
    """One of two words for a single score of each row: the second from `threshold` on."""

    output: str
    name: str = ""
    threshold: float = 0.5
    labels: tuple[str, str] = ("no", "yes")
    activation: Literal["none", "sigmoid"] = "none"

    def fit(self, outputs: dict[str, Form]) -> None:
        shape = tensor_form(outputs, self.output).shape
        if shape and len(shape) > 1 and any(size not in (None, 1) for size in shape[1:]):
            raise ValueError(f"takes one score for each row, and {self.output!r} has the shape {list(shape)}")
        replace(outputs, self.output, self.name)

    def run(self, answer: dict[str, Any], feed: Feed) -> None:
        given = tensor(answer, self.output)
        if given.size != (given.shape[0] if given.ndim else 1):
            raise unfit(
                f"output {self.output!r} of shape {list(given.shape)} holds more than one score per row"
            )
        scores = activated(given.reshape(-1).astype(np.float64), self.activation)
        found = [
            {"label": self.labels[bool(score >= self.threshold)], "score": score} for score in scores.tolist()
        ]
        put(answer, self.output, self.name, unwrapped(found, feed))


def activated(scores: Floats, activation: str) -> Floats:
    """Scores as shares, computed so that large ones do not overflow."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if activation == "sigmoid":
            part = np.exp(-np.abs(scores))
            return np.asarray(np.where(scores >= 0, 1.0, part) / (1.0 + part))
        if activation == "softmax":
            part = np.exp(scores - scores.max(axis=-1, keepdims=True))
            return np.asarray(part / part.sum(axis=-1, keepdims=True))
    return scores


def classes(answer: dict[str, Any], output: str, count: int) -> Floats:
    """A row of scores for each item: axes of length one between and behind are left out."""
    given = tensor(answer, output)
    if given.ndim == 1:
        given = given[np.newaxis]
    wide = max(given.shape[1:], default=0)
    if not given.ndim or not given.size or given.size != given.shape[0] * wide:
        raise unfit(f"output {output!r} of shape {list(given.shape)} holds no row of scores for each item")
    if count and wide != count:
        raise unfit(f"output {output!r} scores {wide} classes, and {count} labels are declared")
    return given.reshape(given.shape[0], wide).astype(np.float64)


def tensor(answer: dict[str, Any], output: str) -> Array:
    """An output of numbers."""
    given = answer.get(output)
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "fiub":
        raise unfit(f"there is no output {output!r} of numbers")
    return given


def unfit(message: str) -> errors.ModelError:
    """The outputs are not those that the steps were declared for."""
    return errors.ModelError(message, reason="steps")


def tensor_form(outputs: dict[str, Form], output: str) -> Form:
    """The form of an output of numbers; raise ValueError when there is none."""
    form = outputs.get(output)
    if form is None:
        raise ValueError(
            f"there is no output {output!r}; there are {', '.join(map(repr, outputs)) or 'none'}"
        )
    if form.kind != "tensor" or form.dtype == "string":
        raise ValueError(f"{output!r} holds no tensor of numbers")
    return form


def replace(outputs: dict[str, Form], output: str, name: str) -> None:
    """What a step makes takes the place of its output, or stands beside it under a name of its own."""
    outputs[name or output] = Form(kind="made")


def put(answer: dict[str, Any], output: str, name: str, made: Any) -> None:
    """The same for the answer. The output itself stays when the result has another name."""
    answer[name or output] = made


def unwrapped(rows: list[Any], feed: Feed) -> Any:
    """One thing in, one thing out; a list for a list."""
    return rows[0] if feed.one and len(rows) == 1 else rows


def label_of(labels: tuple[str, ...], index: int) -> str:
    """The name of a class, or its number."""
    return labels[index] if labels else str(index)


def _check_labels(labels: tuple[str, ...]) -> None:
    if len(set(labels)) != len(labels):
        raise ValueError("two labels are the same")


def _fit_classes(outputs: dict[str, Form], output: str, count: int) -> None:
    shape = tensor_form(outputs, output).shape
    if not shape or not count:
        return
    known = [size for size in shape[1:] if size not in (None, 1)]
    if len(known) > 1 or (known and known[0] != count):
        raise ValueError(f"has {count} labels for an output of shape {list(shape)}")
