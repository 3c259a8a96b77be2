"""Threads for runs that would hold up the event loop.

Less than a ThreadPoolExecutor under asyncio does: a run that ends puts its outcome into the loop, and that is
all. Two futures and their callbacks took as long as reading an image.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple


class _Work(NamedTuple):
    run: Callable[[], Any]
    finish: Callable[[Any], None]
    loop: asyncio.AbstractEventLoop


class Workers:
    """A number of threads, started when the first of them is needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._started = False

    def submit(
        self, run: Callable[[], Any], finish: Callable[[Any], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Call `run`, which must not raise, in a thread, and then `finish` on the loop with what it returned;
        with None when the threads end before."""
        if not self._started:
            self._started = True
            for number in range(self._count):
                threading.Thread(target=self._work, name=f"edgeflow-run-{number}", daemon=True).start()
        self._waiting.put(_Work(run, finish, loop))

    def close(self) -> None:
        """Begin nothing more; runs in work end by themselves. On the event loop."""
        with contextlib.suppress(queue.Empty):
            while True:
                work = self._waiting.get_nowait()
                if work is not None:
                    work.finish(None)
        for _ in range(self._count if self._started else 0):
            self._waiting.put(None)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            outcome = work.run()
            # A loop that has been closed meanwhile has nobody who waits.
            with contextlib.suppress(RuntimeError):
                work.loop.call_soon_threadsafe(work.finish, outcome)
            del work, outcome  # while this thread waits it keeps no model alive
