"""Requests as the tables that are counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from edgeflow_agent.inference.observing import Taken, tables

_SERVING: Any = SimpleNamespace(engine=SimpleNamespace(output_names=("label", "scores", "map")))


def taken(feed: dict[str, Any], *outputs: Any) -> Taken:
    return Taken(_SERVING, feed, outputs, size=sum(value.nbytes for value in feed.values()))


def row(number: int) -> Taken:
    return taken(
        {"x": np.full((1, 4), number, np.float32)}, np.array([number]), np.full((1, 3), number), [{"a": 1.0}]
    )


def test_rows_of_one_form_are_one_table() -> None:
    ((feed, outputs, count),) = tables([row(number) for number in range(5)])
    assert count == 5
    np.testing.assert_array_equal(feed["x"], np.repeat(np.arange(5.0), 4).reshape(5, 4))
    np.testing.assert_array_equal(outputs["label"], np.arange(5))
    assert outputs["scores"].shape == (5, 3)
    assert "map" not in outputs, "what is no tensor has no rows"


def test_other_forms_are_tables_of_their_own() -> None:
    other = taken({"x": np.zeros((2, 7), np.float32)}, np.array([1, 2]), np.zeros((2, 3)), [])
    scalar = taken({"x": np.float32(1).reshape(())}, np.array([1]), np.zeros((1, 3)), [])
    found = list(tables([row(0), other, row(1), scalar]))
    assert [count for *_, count in found] == [2, 1, 1]
    assert [feed["x"].shape for feed, *_ in found if "x" in feed] == [(2, 4), (2, 7)]


def test_of_very_many_rows_some_are_looked_at() -> None:
    many = taken({"x": np.arange(5000.0).reshape(-1, 1)}, np.arange(5000), np.zeros((5000, 3)), None)
    ((feed, outputs, count),) = tables([many])
    assert count == 1
    np.testing.assert_array_equal(feed["x"][:, 0], outputs["label"])
    assert (len(feed["x"]), feed["x"][0, 0], feed["x"][-1, 0]) == (1024, 0, 4999)


def test_large_tensors_are_not_copied_together() -> None:
    image = np.zeros((1, 3, 300, 300), np.float32)
    found = list(tables([taken({"x": image}, np.array([1]), np.zeros((1, 3)), None) for _ in range(3)]))
    assert [count for *_, count in found] == [1, 1, 1]
    assert found[0][0]["x"] is image
