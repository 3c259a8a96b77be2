"""Serve nudenet, a YOLOv8 that finds faces and other parts of bodies: an image in, boxes on that image out.

pip install nudenet
python examples/models/body_parts.py /tmp/body-parts
edgeflow-agent serve /tmp/body-parts
curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg http://127.0.0.1:8080/infer
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import destination

PACKAGE = "nudenet==3.4.2"
# In the order of the graph's classes.
LABELS = [
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
]


def model(cache: Path | None = None) -> Path:
    return destination.out_of_wheel(PACKAGE, "nudenet/320n.onnx", cache)


def steps() -> list[dict[str, Any]]:
    """What nudenet does in OpenCV. It feeds blue before red and does not turn images upright."""
    return [
        {"step": "decode_image", "mode": "BGR", "exif": False},
        {"step": "pad", "place": "end"},
        {"step": "resize", "width": 320, "height": 320},
        {"step": "normalise"},
        {"step": "layout"},
        {"step": "feed", "input": "images"},
        {
            "step": "detections",
            "output": "output0",
            "name": "found",
            "labels": LABELS,
            "threshold": 0.25,
            "iou": 0.45,
            "across": "all",
            "clip": "corner",
            "gives": "corner_size",
        },
        {"step": "select", "names": ["found"]},
    ]


if __name__ == "__main__":
    destination.main(__doc__ or "", "body-parts", model, steps)
