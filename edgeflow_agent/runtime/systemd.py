"""Telling systemd how it goes: started, stopping, and, as long as requests could be answered, alive.

Nothing happens where systemd does not listen.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Systemd:
    """`ready` and `stopping` are said once; in between the watchdog is fed while `alive` says so."""

    def __init__(self, alive: Callable[[], bool]) -> None:
        self._alive = alive
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._every_s = _watchdog_s() / 3
        self._stop = threading.Event()

    def ready(self, status: str) -> None:
        """The service answers; `status` is what `systemctl status` shows."""
        self._say(f"READY=1\nSTATUS={status}")
        if self._address and self._every_s:
            threading.Thread(target=self._feed, name="edgeflow-watchdog", daemon=True).start()

    def stopping(self) -> None:
        """The service answers what was asked, and ends."""
        self._stop.set()
        self._say("STOPPING=1")

    def _feed(self) -> None:
        while not self._stop.wait(self._every_s):
            if self._alive():
                self._say("WATCHDOG=1")
            else:
                logger.error("requests are not answered any more; systemd will start this service again")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        # A name in the abstract space begins with @ here and with a zero byte there.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
                link.connect(address)
                link.send(text.encode())
        except OSError as error:
            logger.warning("systemd cannot be told %r: %s", text.partition("\n")[0], error)


def _watchdog_s() -> float:
    """How long systemd waits for a sign of life; 0: it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0
