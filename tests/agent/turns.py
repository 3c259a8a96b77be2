"""An event loop that a test turns by hand."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from typing import Any, cast


class Turns:
    """What is put into a turn is done in its order; what comes up meanwhile is done in the next one."""

    def __init__(self) -> None:
        self._ready: collections.deque[Callable[[], Any]] = collections.deque()

    def call_soon(self, call: Callable[[], Any]) -> None:
        self._ready.append(call)

    def turn(self) -> bool:
        """Whether there was something to do."""
        count = len(self._ready)
        for _ in range(count):
            self._ready.popleft()()
        return bool(count)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return cast("Any", self)
