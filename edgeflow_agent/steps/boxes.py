"""Steps that make objects with boxes of what a detector gives."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from edgeflow_agent.steps import scores
from edgeflow_agent.steps.flow import After, Array, Feed, Form
from edgeflow_agent.steps.suppression import suppress


class Detections(After, tag="detections", frozen=True, kw_only=True):
    """What a detector of the YOLO kind has found, as label, confidence and box on the original image.

    `layout`: `columns` is [1, values, candidates] (YOLOv8), `rows` is [1, candidates, values]. The values of
    a candidate: four of its box, one of `objectness` where that is declared, then a score for each class; or,
    with `classes = "index"`, its confidence and the number of its class.
    """

    output: str
    name: str = ""
    labels: tuple[str, ...] = ()
    layout: Literal["columns", "rows"] = "columns"
    box: Literal["centre", "corners", "corner_size"] = "centre"
    objectness: bool = False
    classes: Literal["scores", "index"] = "scores"
    activation: Literal["none", "sigmoid"] = "none"
    size: tuple[int, int] | None = None  # boxes are shares of these width and height
    threshold: float = 0.25
    iou: float = 0.45
    across: Literal["class", "all"] = "class"
    limit: int = 300
    clip: Literal["edges", "corner", "none"] = "edges"
    gives: Literal["corners", "corner_size"] = "corners"

    def __post_init__(self) -> None:
        if not 0 <= self.iou <= 1 or not 1 <= self.limit <= 10_000:
            raise ValueError("iou must be from 0 to 1, and limit from 1 to 10000")
        if self.classes == "index" and self.objectness:
            raise ValueError("objectness is for scores of classes")
        if self.size is not None and min(self.size) < 1:
            raise ValueError("size must hold a width and a height")

    @property
    def _width(self) -> int | None:
        """How many values a candidate has, where the labels tell."""
        if self.classes == "index":
            return 6
        return 4 + self.objectness + len(self.labels) if self.labels else None

    def fit(self, outputs: dict[str, Form]) -> None:
        shape = scores.tensor_form(outputs, self.output).shape
        if shape:
            width = shape[-2] if self.layout == "columns" and len(shape) > 1 else shape[-1]
            if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (None, 1)):
                raise ValueError(f"takes the candidates of one image, and the output is {list(shape)}")
            if width is not None and self._width is not None and width != self._width:
                raise ValueError(
                    f"declares {self._width} values for each candidate, and the output has {width}"
                )
        scores.replace(outputs, self.output, self.name)

    def run(self, answer: dict[str, Any], feed: Feed) -> None:
        table = self._table(scores.tensor(answer, self.output))
        confidence, index = self._judged(table)
        chosen = np.nonzero(confidence > self.threshold)[0]
        confidence, index = confidence[chosen], index[chosen]
        boxes = self._corners(table[:4, chosen].T.astype(np.float64))
        if feed.geometry is not None:
            boxes = feed.geometry.back(boxes)
            if self.clip == "corner":
                boxes = _cornered(boxes, feed.geometry.width, feed.geometry.height)
        kept = suppress(boxes, confidence, index if self.across == "class" else None, self.iou, self.limit)
        boxes = boxes[kept]
        if feed.geometry is not None and self.clip == "edges":
            boxes = np.clip(boxes, 0, [feed.geometry.width, feed.geometry.height] * 2)
        if self.gives == "corner_size":
            boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        found = [
            {"label": self._label(number), "index": number, "confidence": share, "box": box}
            for number, share, box in zip(
                index[kept].tolist(), confidence[kept].tolist(), boxes.tolist(), strict=True
            )
        ]
        scores.put(answer, self.output, self.name, found)

    def _table(self, given: Array) -> Array:
        """A column for each candidate."""
        table = given[0] if given.ndim == 3 and given.shape[0] == 1 else given
        if table.ndim != 2:
            raise scores.unfit(
                f"output {self.output!r} of shape {list(given.shape)} is not of one image's candidates"
            )
        table = table.T if self.layout == "rows" else table
        least = 6 if self.classes == "index" else 5 + self.objectness
        if table.shape[0] < least or self._width not in (None, table.shape[0]):
            raise scores.unfit(
                f"output {self.output!r} has {table.shape[0]} values for each candidate, and "
                f"{self._width or least} are declared"
            )
        return table

    def _judged(self, table: Array) -> tuple[Array, Array]:
        """Confidence and class of each candidate."""
        if self.classes == "index":
            confidence = scores.activated(table[4].astype(np.float64), self.activation)
            index = table[5].astype(np.float64)
            # What is no number, or no class, is no detection.
            real = (index >= 0) & (index < (len(self.labels) or 2**31))
            return np.where(real, confidence, -np.inf), np.where(real, index, 0).astype(np.int64)
        by_class = table[4 + self.objectness :]
        index = by_class.argmax(axis=0)
        best = np.take_along_axis(by_class, index[np.newaxis], axis=0)[0]
        # The best stays the best under an activation: one number of each candidate is enough.
        confidence = scores.activated(best.astype(np.float64), self.activation)
        if self.objectness:
            confidence = confidence * scores.activated(table[4].astype(np.float64), self.activation)
        return confidence, index

    def _corners(self, boxes: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            if self.size is not None:
                boxes = boxes * np.array(self.size * 2)
            first, second = boxes[:, :2], boxes[:, 2:]
            if self.box == "centre":
                first = first - second / 2
            return np.concatenate([first, second if self.box == "corners" else first + second], axis=1)

    def _label(self, index: int) -> str:
        return scores.label_of(self.labels, index)


def _cornered(boxes: Array, width: int, height: int) -> Array:
    """The upper left corner is moved into the image with the whole box, then what sticks out is cut off."""
    edge = np.array([width, height])
    first = np.clip(boxes[:, :2], 0, edge)
    size = np.minimum(boxes[:, 2:] - boxes[:, :2], edge - first)
    return np.concatenate([first, first + size], axis=1)
