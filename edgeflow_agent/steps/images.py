"""Steps on images: from the bytes of a file to the numbers that a graph takes."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.steps import payload, resample
from edgeflow_agent.steps.flow import DTYPES, Array, Before, Feed, Form, Geometry, expect

# Of what becomes of an image on its way: a line of pixels as a square would be gigabytes.
MAX_PIXELS = 64 * 10**6
_MAX_SIDE = 16384
_RESIZE = {"nearest": resample.nearest, "bilinear": resample.bilinear, "smooth": resample.smooth}


class DecodeImage(Before, tag="decode_image", frozen=True, kw_only=True):
    """The pixels of a JPEG or PNG. Without its transparency, turned upright as its EXIF data says."""

    mode: Literal["RGB", "BGR", "L"] = "RGB"
    exif: bool = True
    max_pixels: int = 32_000_000  # a file of a few kilobytes can unpack to gigabytes

    def form(self, given: Form) -> Form:
        expect(given, "request")
        return Form(kind="image", dtype="uint8", shape=(None, None, self._channels))

    @property
    def _channels(self) -> int:
        return 1 if self.mode == "L" else 3

    def run(self, value: Any, feed: Feed) -> Array:
        # In a notebook the pixels may be there already.
        pixels = (
            value if isinstance(value, np.ndarray) else self._decode(payload.content(value, "a JPEG or PNG"))
        )
        if (
            pixels.dtype != np.uint8
            or pixels.ndim != 3
            or pixels.shape[2] != self._channels
            or not pixels.size
        ):
            raise errors.InputError(
                f"expected pixels of uint8 in {self._channels} channels: height, width, channel"
            )
        feed.geometry = Geometry(width=pixels.shape[1], height=pixels.shape[0])
        return pixels

    def _decode(self, content: bytes) -> Array:
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
                if image.width * image.height > self.max_pixels:
                    raise errors.InputError(f"the image has more than {self.max_pixels} pixels")
                upright = ImageOps.exif_transpose(image) if self.exif else image
                if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                    upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
                pixels = np.array(upright.convert("L" if self.mode == "L" else "RGB"))
        except errors.InputError:
            raise
        except UnidentifiedImageError as error:
            raise errors.InputError("this is no JPEG or PNG") from error
        except Exception as error:  # broken files end in a dozen kinds of error
            raise errors.InputError(f"the image cannot be read: {error}") from error
        if self.mode == "BGR":
            pixels = pixels[:, :, ::-1]
        return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], self._channels))


class Pad(Before, tag="pad", frozen=True, kw_only=True):
    """Make the image a square with a border of one colour."""

    place: Literal["end", "centre"] = "centre"
    fill: int = 0

    def __post_init__(self) -> None:
        _check_fill(self.fill)

    def form(self, given: Form) -> Form:
        _expect_pixels(given)
        return Form(kind="image", dtype="uint8", shape=(None, None, _channels(given)))

    def run(self, value: Array, feed: Feed) -> Array:
        side = max(value.shape[:2])
        if side * side > MAX_PIXELS:
            raise errors.InputError(
                f"as a square the image has more than {MAX_PIXELS // 10**6} million pixels"
            )
        return _framed(value, side, side, self.place, self.fill, feed)


class Resize(Before, tag="resize", frozen=True, kw_only=True):
    """Bring the image to `width` and `height`: stretched, whole inside a border, or cut at the middle."""

    width: int
    height: int
    fit: Literal["stretch", "letterbox", "crop"] = "stretch"
    method: Literal["nearest", "bilinear", "smooth"] = "bilinear"
    place: Literal["end", "centre"] = "centre"
    fill: int = 114

    def __post_init__(self) -> None:
        _check_fill(self.fill)
        if not (0 < self.width <= _MAX_SIDE and 0 < self.height <= _MAX_SIDE):
            raise ValueError(f"width and height must be between 1 and {_MAX_SIDE}")

    def form(self, given: Form) -> Form:
        _expect_pixels(given)
        return Form(kind="image", dtype="uint8", shape=(self.height, self.width, _channels(given)))

    def run(self, value: Array, feed: Feed) -> Array:
        if self.fit == "stretch":
            return self._scaled(value, self.height, self.width, feed)
        factors = (self.height / value.shape[0], self.width / value.shape[1])
        factor = min(factors) if self.fit == "letterbox" else max(factors)
        height, width = (max(1, round(size * factor)) for size in value.shape[:2])
        if height * width > MAX_PIXELS:
            raise errors.InputError("the image is too long and thin to be brought to this size")
        value = self._scaled(value, height, width, feed)
        if self.fit == "letterbox":
            # Rounding never makes it larger: the side that decides comes out exactly.
            return _framed(value, self.height, self.width, self.place, self.fill, feed)
        return self._cut(value, feed)

    def _scaled(self, value: Array, height: int, width: int, feed: Feed) -> Array:
        if feed.geometry is not None:
            feed.geometry = feed.geometry.scaled(width / value.shape[1], height / value.shape[0])
        return _RESIZE[self.method](value, height, width)

    def _cut(self, value: Array, feed: Feed) -> Array:
        top, left = (value.shape[0] - self.height) // 2, (value.shape[1] - self.width) // 2
        if feed.geometry is not None:
            feed.geometry = feed.geometry.moved(-left, -top)
        return value[top : top + self.height, left : left + self.width]


class Normalise(Before, tag="normalise", frozen=True, kw_only=True):
    """`(pixel * scale - mean) / std` in float32; `mean` and `std` are one number, or one per channel."""

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.mean or not self.std or 0 in self.std:
            raise ValueError("mean and std must hold numbers, and std none that is zero")

    def form(self, given: Form) -> Form:
        expect(given, "image")
        channels = _channels(given)
        for word in ("mean", "std"):
            count = len(getattr(self, word))
            if channels is not None and count not in (1, channels):
                raise ValueError(f"{word} has {count} numbers for an image of {channels} channels")
        return Form(kind="image", dtype="float32", shape=given.shape)

    def run(self, value: Array, feed: Feed) -> Array:
        result = value.astype(np.float32) * np.float32(self.scale)
        # Most images are only scaled: two passes over every pixel less.
        if any(self.mean):
            result -= np.asarray(self.mean, dtype=np.float32)
        if any(number != 1 for number in self.std):
            result /= np.asarray(self.std, dtype=np.float32)
        return result


class Layout(Before, tag="layout", frozen=True, kw_only=True):
    """The image as a tensor: order of its axes, an axis for the batch, and its type."""

    order: Literal["chw", "hwc"] = "chw"
    batch: bool = True
    dtype: Literal["uint8", "float16", "float32", "float64", ""] = ""

    def form(self, given: Form) -> Form:
        expect(given, "image")
        if self.dtype == "uint8" != given.dtype:
            raise ValueError("cannot give uint8 after normalise, which makes fractions")
        height, width, channels = given.shape or (None, None, None)
        shape = (channels, height, width) if self.order == "chw" else (height, width, channels)
        return Form(
            kind="tensor", dtype=self.dtype or given.dtype, shape=(1, *shape) if self.batch else shape
        )

    def run(self, value: Array, feed: Feed) -> Array:
        if self.order == "chw":
            value = value.transpose(2, 0, 1)
        if self.batch:
            value = value[np.newaxis]
        return np.ascontiguousarray(value, dtype=DTYPES[self.dtype] if self.dtype else None)


def _framed(value: Array, height: int, width: int, place: str, fill: int, feed: Feed) -> Array:
    """`value` within a border, noting how far it moved."""
    down, right = height - value.shape[0], width - value.shape[1]
    top, left = (down // 2, right // 2) if place == "centre" else (0, 0)
    if feed.geometry is not None:
        feed.geometry = feed.geometry.moved(left, top)
    result = np.full((height, width, value.shape[2]), fill, dtype=np.uint8)
    result[top : top + value.shape[0], left : left + value.shape[1]] = value
    return result


def _check_fill(fill: int) -> None:
    if not 0 <= fill <= 255:
        raise ValueError("fill must be between 0 and 255")


def _expect_pixels(given: Form) -> None:
    expect(given, "image")
    if given.dtype != "uint8":
        raise ValueError("takes pixels of 8 bits: it comes before normalise")


def _channels(given: Form) -> int | None:
    return given.shape[2] if given.shape else None
