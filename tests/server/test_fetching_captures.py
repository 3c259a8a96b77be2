"""Fetching a capture from a device that nobody vouches for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edgeflow_mlflow import errors
from edgeflow_mlflow.services import captures, rpc


def test_a_device_that_gives_it_byte_by_byte_is_waited_for_no_longer_than_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def ask(*_args: Any, timeout_s: float) -> tuple[int, bytes]:
        asked.append(timeout_s)
        assert len(asked) < 200_000, "it is asked for ever"
        return 200, msgspec.json.encode({"size": 10**7, "piece": b"x"})

    monkeypatch.setattr(rpc, "ask", ask)
    with pytest.raises(errors.ConflictError, match=r"within 0\.2 s"):
        captures.fetch(None, "robot", "c", timeout_s=0.2)  # type: ignore[arg-type]
    assert all(0 < left <= 0.2 for left in asked)
