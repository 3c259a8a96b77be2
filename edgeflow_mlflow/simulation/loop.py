"""One thread for all devices: sockets, one timer for each device, and what other threads hand over."""

from __future__ import annotations

import collections
import contextlib
import heapq
import logging
import selectors
import socket
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

Ready = Callable[[int], None]
# However often a device would like to be asked: not more often than this.
_SHORTEST_S = 0.05
_LONGEST_S = 1.0


class Loop:
    """Everything belongs to the thread that calls `turn`, except `hand_over` and `wake`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._handed: collections.deque[Callable[[], None]] = collections.deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector.register(self._reader, selectors.EVENT_READ, self._drain)
        self._timers: list[tuple[float, int]] = []
        self._due: dict[int, float] = {}
        # The time of day, but never backwards and without jumps.
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """The time of day in seconds."""
        return time.monotonic() + self._offset

    def hand_over(self, call: Callable[[], None]) -> None:
        """Let the loop's thread call this; from any thread."""
        self._handed.append(call)
        self.wake()

    def wake(self) -> None:
        """End the pause; from any thread, and from a signal handler."""
        with contextlib.suppress(OSError):  # full: it will wake up anyway; closed: there is nobody to wake
            self._writer.send(b"\0")

    def _drain(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def watch(self, sock: socket.socket, ready: Ready, *, writing: bool) -> None:
        """Call `ready` with what is possible on the socket, from now on."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        known = self._selector.get_map().get(sock)
        if known is None:
            self._selector.register(sock, events, ready)
        elif known.events != events:
            self._selector.modify(sock, events, ready)

    def forget(self, sock: socket.socket) -> None:
        """Watch the socket no longer; before it is closed."""
        with contextlib.suppress(KeyError, ValueError):  # it never was
            self._selector.unregister(sock)

    def at(self, owner: int, due: float) -> None:
        """The one timer of this owner."""
        due = max(due, self.now() + _SHORTEST_S)
        self._due[owner] = due
        if due < float("inf"):
            heapq.heappush(self._timers, (due, owner))

    def turn(self, fire: Callable[[int], None]) -> None:
        """Wait for something, and do everything that is due; `fire` is given the owners of timers."""
        pause = 0.0 if self._handed else _LONGEST_S
        if self._timers:
            pause = min(pause, max(self._timers[0][0] - self.now(), 0.0))
        for key, events in self._selector.select(pause):
            self._guard(key.data, events)
        for _ in range(len(self._handed)):
            self._guard(self._handed.popleft())
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            due, owner = heapq.heappop(self._timers)
            if self._due.get(owner) == due:  # else it was set anew
                self._due[owner] = float("inf")
                self._guard(fire, owner)

    def _guard(self, call: Callable[..., None], *args: int) -> None:
        try:
            call(*args)
        except Exception:
            # One device's mishap is not the fleet's.
            logger.exception("a simulated device failed in an unexpected way")

    def close(self) -> None:
        """Let everything go."""
        self._selector.close()
        self._reader.close()
        self._writer.close()
