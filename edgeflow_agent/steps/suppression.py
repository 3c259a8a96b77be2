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
        # A row for each side, for the area and for the class: whole rows are what NumPy is fast at.
        left, top, right, bottom = boxes[order].T
        area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
        group = np.zeros(order.size) if index is None else index[order]
        rest = np.stack([left, top, right, bottom, area, group, order])
        while rest.shape[1] and len(kept) < limit:
            left, top, right, bottom, area, group, place = rest[:, 0]
            kept.append(int(place))
            rest = rest[:, 1:]
            width = np.minimum(rest[2], right) - np.maximum(rest[0], left)
            height = np.minimum(rest[3], bottom) - np.maximum(rest[1], top)
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            gone = (shared / (area + rest[4] - shared) > iou) & (rest[5] == group)
            if gone.any():
                rest = rest[:, ~gone]
    return np.array(kept, dtype=np.int64)
