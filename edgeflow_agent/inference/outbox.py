"""Answers of one turn of the event loop go out together.

An answer wakes its client. Sent one by one, between one run and the next, each of eight clients in a process
is woken for itself, on another core, and asks again for itself: the waking then costs more than the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized

# What is longer is not kept back: the transport must see it to say that a client does not read.
_SHORT = 64 * 1024


class Outbox:
    """For all connections of one loop. Whoever closes a connection, or writes to it himself, calls `flush`
    first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # What else is to be done in this turn. asyncio does not promise it: without it, nothing waits.
        self._turn: Sized = getattr(loop, "_ready", ())
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write at the end of this turn at the latest."""
        waiting = self._waiting
        # One of those to come in this turn is `flush` itself, when something waits.
        if len(self._turn) > bool(waiting) and len(data) <= _SHORT:
            if not waiting:
                self._loop.call_soon(self.flush)
            waiting.append((transport, data))
            return
        if waiting:
            self.flush()
        transport.write(data)

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            transport.write(data)
