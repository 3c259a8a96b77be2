"""Stopping a run in the event loop at its deadline: the loop itself cannot, it is running it."""

from __future__ import annotations

import threading
import time

from edgeflow_agent.inference.engine import RunHandle


class Deadline:
    """A thread that looks at the run of the event loop from time to time."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._running: tuple[float, RunHandle] | None = None
        self._handle = RunHandle()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgeflow-deadline", daemon=True)
        self._thread.start()

    def begin(self) -> RunHandle:
        """A handle for the run that starts now."""
        if self._handle.terminated:
            self._handle = RunHandle()
        self._running = (time.perf_counter(), self._handle)
        return self._handle

    def end(self) -> None:
        """The run is over."""
        self._running = None

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(min(0.25, self._timeout_s / 2)):
            running = self._running
            if running is None or time.perf_counter() - running[0] < self._timeout_s:
                continue
            # Looked at again, so that the next run, which shares the handle, is rarely hit; if it is, its
            # caller gets a 504 and the handle is replaced.
            if self._running is running:
                running[1].terminate()
