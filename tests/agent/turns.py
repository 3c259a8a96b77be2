"""An event loop that a test turns by hand."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, cast

from edgeflow_agent.inference.outbox import Outbox


class Turns:
    """What is put into a turn is done in its order; what comes up meanwhile is done in the next one."""

    def __init__(self) -> None:
        self._ready: collections.deque[Callable[[], Any]] = collections.deque()

    def call_soon(self, call: Callable[[], Any]) -> None:
        self._ready.append(call)

    def turn(self) -> None:
        for _ in range(len(self._ready)):
            self._ready.popleft()()

    def outbox(self) -> Outbox:
        return Outbox(cast("Any", self))
