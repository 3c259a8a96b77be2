"""Greedy non-maximum suppression: of boxes that overlap, the most confident one stays."""

from __future__ import annotations

import numpy as np

from edgeflow_agent.steps.flow import Array

# What is not among the best so many has never been an object, and pairs grow with the square.
_MAX_CANDIDATES = 30_000


def suppress(boxes: Array, confidence: Array, index: Array | None, iou: float, limit: int) -> Array:
    """The places of those that stay, the most confident first. `index` holds the classes: only boxes of the
    same one suppress each other; None: all do. Boxes are left, top, right, bottom."""
    order = np.argsort(-confidence, kind="stable")[:_MAX_CANDIDATES]
    kept: list[int] = []
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        areas = _area(boxes)
        while order.size and len(kept) < limit:
            best, rest = order[0], order[1:]
            kept.append(int(best))
            overlap = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(
                boxes[best, :2], boxes[rest, :2]
            )
            shared = np.prod(np.maximum(overlap, 0), axis=1)
            gone = shared / (areas[best] + areas[rest] - shared) > iou
            if index is not None:
                gone &= index[rest] == index[best]
            order = rest[~gone]
    return np.array(kept, dtype=np.int64)


def _area(boxes: Array) -> Array:
    return np.asarray(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1))
