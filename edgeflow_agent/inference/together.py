"""What is asked for in one turn of the event loop is answered together: step by step, not one by one.

Each step of an inference brings code of its own into the processor's caches, and the next step drives it
out again. Where several requests go through a step one right after the other, only the first of them pays for
that. And an answer wakes its client: sent between one run and the next, each would wake it for itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence, Sized
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class Together(Generic[Item]):
    """For one event loop, on which all of this happens."""

    def __init__(self, loop: asyncio.AbstractEventLoop, steps: Sequence[Callable[[Item], None]]) -> None:
        self._loop = loop
        self._steps = steps
        # What is still to be done in this turn. asyncio does not promise it: without it, nothing waits.
        self._turn: Sized = getattr(loop, "_ready", ())
        self._waiting: list[Item] = []

    def add(self, item: Item) -> bool:
        """Take this through all steps after this turn, with what else came in it. False: nothing else came or
        will come, and nothing was done."""
        if not self._waiting:
            if not self._turn:
                return False
            self._loop.call_soon(self._take)
        self._waiting.append(item)
        return True

    def _take(self) -> None:
        waiting, self._waiting = self._waiting, []
        for step in self._steps:
            for item in waiting:
                try:
                    step(item)
                except Exception:
                    logger.exception("a step failed; what else came in this turn goes on")
