"""The request that is shown for a try is one that the steps take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeflow_agent import steps

FEED = {"step": "feed", "input": "x"}
COLOUR = {"step": "category", "field": "colour", "values": ["red", "blue"]}


@pytest.mark.parametrize(
    ("declared", "body"),
    [
        ([{"step": "columns", "names": ["a", "b"], "defaults": {"b": 3}}, FEED], {"a": 0, "b": 3}),
        ([COLOUR, {"step": "columns", "names": ["size", "colour"]}, FEED], {"size": 0, "colour": "red"}),
        (
            [
                {"step": "columns", "names": ["a"], "dtype": "string", "extra": "ignore"}, FEED,
                {"step": "columns", "names": ["b"], "dtype": "bool", "extra": "ignore"},
                {**FEED, "input": "y"},
            ],
            {"a": "text", "b": True},
        ),
        ([{"step": "frame", "length": 3, "shorter": "refuse"}, FEED], [0.0, 0.0, 0.0]),
        (
            [
                {"step": "field", "field": "sound"}, {"step": "frame", "length": 512}, FEED,
                {"step": "field", "field": "volume"}, {"step": "feed", "input": "y", "dtype": "float32"},
            ],
            {"sound": [0.0] * 16, "volume": 0},
        ),
        ([{**FEED, "dtype": "string"}], "text"),
    ],
)  # fmt: skip
def test_an_example_in_json(declared: list[dict[str, Any]], body: Any) -> None:
    pipeline = steps.load(declared)
    kind, text = pipeline.example()
    assert kind == "application/json"
    assert json.loads(text) == body
    pipeline.before(json.loads(text))


def test_an_example_of_a_file() -> None:
    image = steps.load([{"step": "decode_image"}, {"step": "layout"}, FEED])
    assert image.example() == ("image/jpeg", "@photo.jpg")
    window = steps.load([{"step": "bytes_window", "first": 3}, FEED])
    assert window.example() == ("application/octet-stream", "@file")
