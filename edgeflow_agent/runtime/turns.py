"""A thread that takes a turn, waits as long as the turn says or until it is woken, and takes the next."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Turns:
    """`turn` returns the seconds to wait and must not raise; `at_end` runs after the last turn, in the
    same thread. `stopping` is set as soon as no further turn is to begin."""

    def __init__(
        self, name: str, turn: Callable[[], float], *, at_end: Callable[[], None] = lambda: None
    ) -> None:
        self._turn = turn
        self._at_end = at_end
        self._wake = threading.Event()
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"edgeflow-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Take no further turn, and wait for the present one; may be called twice."""
        self.stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def wake(self) -> None:
        """Take the next turn now."""
        self._wake.set()

    def _run(self) -> None:
        while not self.stopping.is_set():
            # Cleared first: what comes during the turn asks for another one.
            self._wake.clear()
            self._wake.wait(self._turn())
        self._at_end()
