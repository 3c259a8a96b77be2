"""Resized pixels are exactly those of Pillow and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from edgeflow_agent.steps import resample
from tests.steps.conftest import pixels

SIZES = st.tuples(*[st.integers(1, 97)] * 4)


@given(SIZES, st.integers(0, 5))
@example((64, 96, 32, 32), 0)
def test_nearest_is_pillows(sizes: tuple[int, int, int, int], seed: int) -> None:
    rows, columns, height, width = sizes
    image = pixels(rows, columns, seed)
    wanted = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
    assert np.array_equal(resample.nearest(image, height, width), np.asarray(wanted))


@given(SIZES, st.integers(0, 5))
@example((97, 3, 5, 90), 0)
def test_smooth_is_pillows_bilinear(sizes: tuple[int, int, int, int], seed: int) -> None:
    rows, columns, height, width = sizes
    image = pixels(rows, columns, seed)
    # One axis after the other: newer releases choose by themselves which one comes first.
    wide = Image.fromarray(image).resize((width, rows), Image.Resampling.BILINEAR)
    wanted = wide.resize((width, height), Image.Resampling.BILINEAR)
    assert np.array_equal(resample.smooth(image, height, width), np.asarray(wanted))


@given(SIZES, st.integers(0, 5))
@example((64, 96, 32, 48), 0)  # half the size has a way of its own
@example((1, 1, 7, 5), 0)
def test_bilinear_is_opencvs(sizes: tuple[int, int, int, int], seed: int) -> None:
    rows, columns, height, width = sizes
    image = pixels(rows, columns, seed)
    wanted = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resample.bilinear(image, height, width), wanted)


def test_grey_images_and_large_ones() -> None:
    image = pixels(480, 640, channels=1)
    wanted = cv2.resize(image, (320, 320), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resample.bilinear(image, 320, 320)[:, :, 0], wanted)
    grey = Image.fromarray(image[:, :, 0]).resize((320, 480), Image.Resampling.BILINEAR)
    wanted = np.asarray(grey.resize((320, 320), Image.Resampling.BILINEAR))
    assert np.array_equal(resample.smooth(image, 320, 320)[:, :, 0], wanted)
