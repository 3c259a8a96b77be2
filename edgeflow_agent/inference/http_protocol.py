"""HTTP/1.1 on one connection: answers in order, deadlines, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import time

from edgeflow_agent.inference.http_reader import Limits, RequestReader
from edgeflow_agent.inference.known_heads import KnownHeads
from edgeflow_agent.inference.messages import Application, Request, Response, head

_READ_AHEAD = 32  # pipelined requests that wait before reading pauses
_LINGER_S = 2.0  # how long a refused sender is listened to, so that it gets to read the refusal
_WRITE_STALL_S = 60.0


class Connection(asyncio.BufferedProtocol):
    """One client. Requests are answered in the order in which they came."""

    def __init__(
        self,
        app: Application,
        limits: Limits,
        connections: set[Connection],
        heads: KnownHeads,
        buffer: memoryview,
    ) -> None:
        """`buffer` is for what is being received: all connections of a loop may share one."""
        self._app = app
        self._limits = limits
        self._connections = connections
        self._reader = RequestReader(limits, heads, buffer, self._go_ahead)
        self._queue = self._reader.requests
        self._transport: asyncio.Transport | None = None
        self._busy: Request | None = None
        self._reading_paused = False
        self._write_paused_at = 0.0
        self._stopping = False
        self._closing_at = 0.0  # when lingering ends

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        if len(self._connections) > self._limits.max_connections:
            text = "too many connections; try again later"
            self._reader.refuse(b"", 503, "too_many_connections", text)
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._connections.discard(self)
        self._transport = None
        self._reader.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._reader.place

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        if self._closing_at or self._stopping:
            return
        self._reader.receive(nbytes)
        if len(self._queue) > _READ_AHEAD and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._pump()

    def eof_received(self) -> bool:
        """The client sends no more; what it asked for is still answered."""
        if self._busy is None and not self._queue:
            return False
        self._stopping = True
        return True

    def pause_writing(self) -> None:
        """The client does not read."""
        self._write_paused_at = time.monotonic()

    def resume_writing(self) -> None:
        """It reads again."""
        self._write_paused_at = 0.0
        self._pump()

    # Answers.

    def _go_ahead(self) -> None:
        # While earlier requests are being answered this would stand in their place.
        if self._transport is not None and self._busy is None and not self._queue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _pump(self) -> None:
        """Answer what is whole, in order, as long as nothing is in work and the client reads."""
        while self._queue and self._busy is None and not self._write_paused_at and not self._closing_at:
            request = self._queue.popleft()
            self._busy = request
            response = self._app(request, self._deliver)
            if response is None:
                break
            self._busy = None
            self._write(request, response)
        if self._transport is None or self._closing_at:
            return
        if self._reading_paused and len(self._queue) < _READ_AHEAD // 2:
            self._reading_paused = False
            self._transport.resume_reading()
        if self._busy is None and not self._queue:
            if self._reader.refusal is not None:
                self._finish(self._reader.refusal)
            elif self._stopping:
                self._close()

    def _deliver(self, response: Response) -> None:
        request, self._busy = self._busy, None
        if request is not None and self._transport is not None:
            self._write(request, response)
            if self._reader.phase == "idle":
                self._reader.enter("idle")
            self._pump()

    def _write(self, request: Request, response: Response) -> None:
        if self._transport is None:
            return
        keep_alive = request.keep_alive and not (self._stopping and not self._queue)
        body = b"" if request.method == b"HEAD" else response.body
        self._transport.write(head(response, keep_alive=keep_alive) + body)
        if not keep_alive:
            self._queue.clear()
            self._closing_at = time.monotonic() + _LINGER_S
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _finish(self, response: Response) -> None:
        """Answer for the last time. Closing at once while the client still sends would reset the
        connection and lose the answer, so it is listened to for a moment."""
        assert self._transport is not None
        self._transport.write(head(response, keep_alive=False) + response.body)
        self._closing_at = time.monotonic() + _LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()

    # What the server calls.

    def sweep(self, now: float) -> None:
        """End what has taken too long."""
        transport, reader, limits = self._transport, self._reader, self._limits
        if transport is None:
            return
        waited_s = now - reader.phase_since
        if self._closing_at:
            if now > self._closing_at:
                transport.abort()
        elif self._write_paused_at and now - self._write_paused_at > _WRITE_STALL_S:
            transport.abort()
        elif self._busy is not None or self._queue:
            return
        elif reader.phase == "idle":
            if waited_s > limits.idle_timeout_s:
                self._close()
        elif waited_s > (limits.header_timeout_s if reader.phase == "head" else limits.body_timeout_s):
            if reader.silent:
                self._close()
            else:
                reader.refuse_late()
        if reader.refusal is not None and not self._closing_at:
            self._pump()

    def stop(self) -> None:
        """Answer what was asked for, then close."""
        self._stopping = True
        if self._busy is None and not self._queue:
            self._close()
