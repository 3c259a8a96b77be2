"""Where closed windows of telemetry go: into their spool, in a size that every way to the server takes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

import msgspec

from edgeflow_agent.store.spool import Spool
from edgeflow_agent.wire import telemetry
from edgeflow_agent.wire.telemetry import TelemetryWindow

logger = logging.getLogger(__name__)

# What the spool still adds to a window: its name, its number, and what waits.
_ROOM = 512


class WindowKeeper:
    """Keeps windows until the server has them; `on_new` is called after each."""

    def __init__(self, spool: Spool[TelemetryWindow], on_new: Callable[[], None]) -> None:
        self._spool = spool
        self._on_new = on_new

    def __call__(self, window: TelemetryWindow) -> None:
        """Keep this one."""
        said = msgspec.structs.replace(window, dropped=self._spool.dropped, pending=self._spool.pending_count)
        try:
            self._spool.add(fitting(said))
        except sqlite3.Error as error:
            # A full disk must not stop a model from serving.
            logger.error("a window of telemetry is not on disk yet, and is tried again: %s", error)
        self._on_new()


def fitting(window: TelemetryWindow) -> TelemetryWindow:
    """The window with as many of its features as a message holds; what is left out is counted."""
    while window.features and not telemetry.fits(window, spare=_ROOM):
        kept = window.features[: len(window.features) // 2]
        window = msgspec.structs.replace(
            window, features=kept, left_out=window.left_out + len(window.features) - len(kept)
        )
    return window
