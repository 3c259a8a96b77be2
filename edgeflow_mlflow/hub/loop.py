"""A named thread that does one thing again and again until it is stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Loop:
    """Call `step` every `every_s` seconds; an exception is logged once per text and the loop goes on."""

    def __init__(
        self,
        name: str,
        every_s: float,
        step: Callable[[], None],
        *,
        fatal: type[Exception],
        on_fatal: Callable[[], None],
    ) -> None:
        self.name = name
        self._every_s = every_s
        self._step = step
        self._fatal = fatal
        self._on_fatal = on_fatal
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"edgeflow-{name}", daemon=True)
        self._last_error = ""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present step; may be called twice and from any thread."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._step()
                self._last_error = ""
            except self._fatal:
                logger.warning("%s: another hub has taken over", self.name, extra={"action": "fence_lost"})
                self._on_fatal()
                return
            except Exception as error:
                if str(error) != self._last_error:
                    logger.exception("%s failed, and goes on", self.name, extra={"action": "loop_error"})
                self._last_error = str(error)
            self._stop.wait(self._every_s)
