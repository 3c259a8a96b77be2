"""From the bytes of an image to a tensor: pixels, places and what is refused."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edgeflow_agent import errors, steps
from edgeflow_agent.steps import images
from tests.steps.conftest import pixels, png, spec

TO_TENSOR = [{"step": "layout"}, {"step": "feed", "input": "x"}]


def tensor(content: Any, *middle: dict[str, Any], **decode: Any) -> Any:
    return steps.load([{"step": "decode_image", **decode}, *middle, *TO_TENSOR]).before(content)["x"]


def test_a_png_as_body_as_base64_and_as_pixels() -> None:
    image = pixels(5, 7)
    content = png(image)
    encoded = base64.b64encode(content).decode()
    for form in (content, bytearray(content), encoded, {"b64": encoded}, image):
        assert np.array_equal(tensor(form)[0].transpose(1, 2, 0), image)
    assert np.array_equal(tensor(content, mode="BGR")[0].transpose(1, 2, 0), image[:, :, ::-1])


def test_a_jpeg_as_opencv_reads_it() -> None:
    ok, content = cv2.imencode(".jpg", cv2.resize(pixels(8, 8), (64, 48)))
    assert ok
    read = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert np.array_equal(tensor(content.tobytes(), mode="BGR")[0].transpose(1, 2, 0), read)


def test_grey_palette_alpha_and_sixteen_bits_become_what_the_model_takes() -> None:
    image = pixels(6, 4)
    grey = Image.fromarray(image).convert("L")
    for made in (grey, grey.convert("P"), Image.fromarray(image).convert("RGBA")):
        file = io.BytesIO()
        made.save(file, "PNG")
        wanted = np.asarray(made.convert("RGB"))
        assert np.array_equal(tensor(file.getvalue())[0].transpose(1, 2, 0), wanted)
    file = io.BytesIO()
    Image.fromarray(np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)).save(file, "PNG")
    assert tensor(file.getvalue(), mode="L")[0, 0].ravel().tolist() == list(range(0, 256, 16))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_an_image_is_turned_upright(orientation: int, turned: Any) -> None:
    image = pixels(6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = png(image, exif=exif)
    assert np.array_equal(tensor(content)[0].transpose(1, 2, 0), turned(image))
    assert np.array_equal(tensor(content, exif=False)[0].transpose(1, 2, 0), image)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JPEG or PNG"),
        (b"GIF89a", "no JPEG or PNG"),
        (png(pixels(9, 9))[:60], "cannot be read"),
        ("not base64!", "as base64"),
        ({"b64": 5}, "got a number"),
        ([1, 2], "got a list"),
        (None, "got null"),
        (np.zeros((3, 3), np.uint8), "pixels of uint8"),
        (np.zeros((3, 3, 3), np.float32), "pixels of uint8"),
    ],
)
def test_what_is_no_image_is_refused(content: Any, words: str) -> None:
    with pytest.raises(errors.InputError, match=words) as caught:
        tensor(content)
    assert str(caught.value).startswith("before[0] decode_image: ")


def test_a_small_file_that_unpacks_to_a_huge_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    tensor(png(np.zeros((10, 10, 3), np.uint8)), max_pixels=100)
    with pytest.raises(errors.InputError, match="more than 100 pixels"):
        tensor(png(np.zeros((10, 11, 3), np.uint8)), max_pixels=100)
    with pytest.raises(errors.InputError, match="as a square"):
        tensor(png(np.zeros((1, 9000, 3), np.uint8)), {"step": "pad"})
    with pytest.raises(errors.InputError, match="too long and thin"):
        tensor(
            png(np.zeros((1, 9000, 3), np.uint8)), {"step": "resize", "width": 9, "height": 9, "fit": "crop"}
        )


def test_letterbox_crop_and_pad_put_the_image_where_they_say() -> None:
    image = pixels(50, 100)
    size = {"step": "resize", "width": 40, "height": 40}
    whole = tensor(png(image), {**size, "fit": "letterbox"})[0].transpose(1, 2, 0)
    assert np.array_equal(whole[10:30], cv2.resize(image, (40, 20)))
    assert (whole[:10] == 114).all()
    assert (whole[30:] == 114).all()
    end = tensor(png(image), {**size, "fit": "letterbox", "place": "end", "fill": 7})[0].transpose(1, 2, 0)
    assert np.array_equal(end[:20], cv2.resize(image, (40, 20)))
    assert (end[20:] == 7).all()
    middle = tensor(png(image), {**size, "fit": "crop"})[0].transpose(1, 2, 0)
    assert np.array_equal(middle, cv2.resize(image, (80, 40))[:, 20:60])
    square = tensor(png(image), {"step": "pad", "fill": 3})[0].transpose(1, 2, 0)
    assert np.array_equal(square[25:75], image)
    assert (square[:25] == 3).all()


def test_normalise_is_what_torchvision_documents() -> None:
    image = pixels(4, 4)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    made = tensor(png(image), {"step": "normalise", "mean": mean, "std": std})
    wanted = (image.astype(np.float64) / 255 - mean) / std
    assert made.dtype == np.float32
    assert np.allclose(made[0].transpose(1, 2, 0), wanted, atol=1e-6)


def test_layout_orders_axes_and_casts() -> None:
    image = pixels(4, 6)
    layout = {"step": "layout", "order": "hwc", "batch": False, "dtype": "float16"}
    pipeline = steps.load([{"step": "decode_image"}, layout, {"step": "feed", "input": "x"}])
    made = pipeline.before(png(image))["x"]
    assert made.dtype == np.float16
    assert np.array_equal(made, image)
    pipeline.check([spec("x", ("h", "w", 3), "float16")], [])


def test_without_pillow_a_device_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = steps.load([{"step": "decode_image"}, *TO_TENSOR])
    pipeline.check_installed()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(errors.ModelError, match=r"pip install 'edgeflow-agent\[image\]'") as caught:
        pipeline.check_installed()
    assert caught.value.reason == "steps"
