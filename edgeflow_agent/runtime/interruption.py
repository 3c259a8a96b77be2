"""How work that takes long learns that it should not go on."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable


class StoppingError(Exception):
    """The agent stops; the deployment goes on after the next start."""


class CancelledError(Exception):
    """A newer document takes the place of the one in work."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interruption:
    """How an effect learns that it should not go on."""

    stopping: threading.Event
    cancelled: Callable[[], bool]

    def check(self) -> None:
        """Raise when there is a reason not to go on."""
        if self.stopping.is_set():
            raise StoppingError
        if self.cancelled():
            raise CancelledError

    def is_due(self) -> bool:
        """Whether `check` would raise."""
        return self.stopping.is_set() or self.cancelled()

    def wait(self, seconds: float) -> None:
        """Wait, and raise as soon as there is a reason not to go on."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self.stopping.wait(min(left, 0.2))
