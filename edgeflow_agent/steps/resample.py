"""Resizing 8-bit images in whole numbers, so that every machine gives the same pixels.

Three ways, each exactly what some model was trained with: `nearest` and `smooth` are Pillow's NEAREST and
BILINEAR (which averages when it shrinks; columns first, then rows), `bilinear` is OpenCV's INTER_LINEAR (two
pixels per axis, always).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeflow_agent.steps.flow import Array

Ints = npt.NDArray[np.int64]

_SMOOTH_BITS = 22  # Pillow: 32 bits less 8 of the pixel less 2
_LINEAR_BITS = 11  # OpenCV: INTER_RESIZE_COEF_BITS


def nearest(image: Array, height: int, width: int) -> Array:
    """The pixel in whose place the middle of the new one lies."""
    return np.asarray(image[_middles(image.shape[0], height)][:, _middles(image.shape[1], width)])


def _middles(before: int, after: int) -> Ints:
    # Added up step by step, as Pillow does: where a middle falls on an edge, the last bit decides.
    steps = np.full(after, before / after)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), before - 1)


def smooth(image: Array, height: int, width: int) -> Array:
    """Triangle filter that widens when the image shrinks, rounded to whole pixels after each axis."""
    # Rows are gathered fastest along the first axis. Columns first: newer Pillows choose, older ones do not.
    if width != image.shape[1]:
        image = _smooth_rows(image.swapaxes(0, 1), width).swapaxes(0, 1)
    return _smooth_rows(image, height) if height != image.shape[0] else image


def _smooth_rows(image: Array, size: int) -> Array:
    places, weights = _triangle(image.shape[0], size)
    image = np.ascontiguousarray(image)
    total = np.full((size, *image.shape[1:]), 1 << (_SMOOTH_BITS - 1), dtype=np.int32)
    for tap in range(places.shape[1]):
        total += image[places[:, tap]] * weights[:, tap].reshape(-1, 1, 1)
    total >>= _SMOOTH_BITS
    return np.clip(total, 0, 255).astype(np.uint8)


def _triangle(before: int, after: int) -> tuple[Ints, npt.NDArray[np.int32]]:
    """For each new pixel the old ones it is made of, and their weights out of 2**22."""
    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    places = first[:, None] + np.arange(int((last - first).max()))
    distance = np.abs((places - centres[:, None] + 0.5) * (1.0 / reach))
    weights = np.where((places < last[:, None]) & (distance < 1.0), 1.0 - distance, 0.0)
    # One after the other, as Pillow adds them up: another order may differ in the last bit.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    fixed = (weights * (1 << _SMOOTH_BITS) + 0.5).astype(np.int32)
    return np.minimum(places, before - 1), fixed


def bilinear(image: Array, height: int, width: int) -> Array:
    """Two neighbours per axis, whatever the factor."""
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if (rows, columns) == (2 * height, 2 * width):
        return _halved(image)
    left, part = _neighbours(columns, width)
    # OpenCV lets the fraction go at the left and right edges, but keeps it at the upper and lower ones.
    part = np.where((left < 0) | (left >= columns - 1), np.float32(0), part)
    left = np.clip(left, 0, columns - 1)
    light, heavy = _shares(part)
    right = np.minimum(left + 1, columns - 1)
    wide: Array = image[:, left] * light[:, None] + image[:, right] * heavy[:, None]
    wide = wide.astype(np.int32) >> 4
    top, part = _neighbours(rows, height)
    light, heavy = (share.reshape(-1, 1, 1) for share in _shares(part))
    upper, lower = np.clip(top, 0, rows - 1), np.clip(top + 1, 0, rows - 1)
    mixed = ((wide[upper] * light) >> 16) + ((wide[lower] * heavy) >> 16)
    return np.asarray(((mixed + 2) >> 2).astype(np.uint8))


def _halved(image: Array) -> Array:
    """OpenCV takes the mean of four at exactly half the size."""
    four = image.astype(np.int32)
    total = four[::2, ::2] + four[1::2, ::2] + four[::2, 1::2] + four[1::2, 1::2]
    return np.asarray(((total + 2) >> 2).astype(np.uint8))


def _neighbours(before: int, after: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    """The first of the two old pixels of each new one, and how far it lies towards the second."""
    places = ((np.arange(after) + 0.5) * (before / after) - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.int64)
    return first, (places - first).astype(np.float32)


def _shares(part: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    one = np.float32(1 << _LINEAR_BITS)
    return np.rint((1 - part) * one).astype(np.int32), np.rint(part * one).astype(np.int32)
