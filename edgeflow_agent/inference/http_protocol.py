"""HTTP/1.1 on one connection: parsing by llhttp, limits, deadlines, order and refusals by us."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import time
from typing import Any

import httptools

from edgeflow_agent.inference.known_heads import KnownHeads
from edgeflow_agent.inference.messages import KEPT_HEADERS, Application, Request, Response, head
from edgeflow_agent.inference.refusals import refusal

logger = logging.getLogger(__name__)

_READ_AHEAD = 32  # pipelined requests that wait before reading pauses
_LINGER_S = 2.0  # how long a refused sender is listened to, so that it gets to read the refusal
_WRITE_STALL_S = 60.0
_READ_HEADERS = KEPT_HEADERS | {b"content-length", b"expect", b"host", b"transfer-encoding"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection may ask for. Times in seconds, sizes in bytes."""

    max_head: int = 16 * 1024
    max_body: int = 32 * 1024 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    max_connections: int = 512


class _StoppedError(Exception):
    """Stops the parser; what to answer stands in `Connection._refusal`."""


class Connection(asyncio.Protocol):
    """One client. Requests are answered in the order in which they came."""

    def __init__(
        self, app: Application, limits: Limits, connections: set[Connection], heads: KnownHeads
    ) -> None:
        self._app = app
        self._limits = limits
        self._connections = connections
        self._heads = heads
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._queue: collections.deque[Request] = collections.deque()
        self._refusal: Response | None = None
        self._busy: Request | None = None
        self._reading_paused = False
        self._write_paused_at = 0.0
        self._stopping = False
        self._closing_at = 0.0  # when lingering ends
        self._phase = "head"
        self._phase_since = time.monotonic()
        self._silent = True  # nothing of the present request has come yet
        self._head_began = False  # within the bytes being parsed
        self._begin_message()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._connections.add(self)
        if len(self._connections) > self._limits.max_connections:
            self._refuse_with(503, "too_many_connections", "too many connections; try again later")
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._connections.discard(self)
        self._transport = None
        self._parser = None  # it refers to this connection: both would wait for the garbage collector
        self._queue.clear()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._refusal is not None or self._closing_at or self._stopping:
            return
        self._silent = False
        if self._phase == "idle":
            request = None if self._queue else self._heads.request(data)
            if request is not None:
                self._queue.append(request)
                self._silent = True
                self._enter("idle")
                self._pump()
                return
            self._enter("head")
        self._head_began = False
        self._received = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak nothing else; the request itself is answered, then the connection ends.
            self._refuse_with(400, "upgrade", "this server speaks HTTP/1.1 only")
        except httptools.HttpParserCallbackError as error:
            if self._refusal is None:
                logger.error("parsing a request failed", exc_info=error)
                self._refuse_with(500, "internal", "the request could not be read")
        except httptools.HttpParserError as error:
            self._refuse_with(400, "bad_request", f"not a valid HTTP request: {error}")
        else:
            if self._phase == "head" and not self._silent:
                # A head that began within these bytes is at most as long as they are.
                self._head_size += 0 if self._head_began else len(data)
                if self._head_size > self._limits.max_head:
                    # A single line that never ends gives the parser nothing to call back about.
                    self._refuse_head()
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

    # What the parser calls.

    def _begin_message(self) -> None:
        self._url = b""
        self._head_size = 0
        self._header_size = 0
        self._length = -1
        self._chunked = False
        self._host = False
        self._expect = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_size = 0

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._begin_message()
        self._head_began = True
        if self._phase != "head":
            self._enter("head")
        self._silent = False

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        self._url += url
        self._grow_head(len(url))

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """One header line."""
        value = value or b""
        self._grow_head(len(name) + len(value) + 4)
        lowered = name.lower()
        if lowered not in _READ_HEADERS:
            return
        if lowered in KEPT_HEADERS:
            earlier = self._headers.get(lowered)
            # Said twice means both: what allows only one value refuses the two together.
            self._headers[lowered] = value if earlier is None else earlier + b", " + value
        elif lowered == b"host":
            if self._host:
                self._refuse(400, "bad_request", "Host was sent twice")
            self._host = True
        elif lowered == b"content-length":
            if self._length >= 0:
                self._refuse(400, "bad_request", "Content-Length was sent twice")
            if not value.isdigit() or len(value) > 18:
                self._refuse(400, "bad_request", "Content-Length is not a number")
            self._length = int(value)
        elif lowered == b"transfer-encoding":
            if value.strip().lower() != b"chunked" or self._chunked:
                self._refuse(501, "transfer_encoding", "the only transfer encoding known here is chunked")
            self._chunked = True
        else:
            self._expect = value.strip().lower()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._chunked and self._length >= 0:
            self._refuse(400, "bad_request", "Content-Length and Transfer-Encoding exclude each other")
        if not self._host and self._parser.get_http_version() == "1.1":
            self._refuse(400, "bad_request", "the Host header is missing")
        if self._length > self._limits.max_body:
            self._refuse_body()
        if self._expect:
            if self._expect != b"100-continue":
                self._refuse(417, "expectation", "the only expectation known here is 100-continue")
            # While earlier requests are being answered the go-ahead would stand in their place.
            if self._transport is not None and self._busy is None and not self._queue:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._enter("body")

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._body_size += len(body)
        if self._body_size > self._limits.max_body:
            self._refuse_body()
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        url = self._url
        path, query = (url, b"") if url[:1] == b"/" and b"?" not in url else _target(url)
        # A client of HTTP/1.0 gets its answer and the end of the connection.
        keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(self._parser.get_method(), path, query, self._headers, body, keep_alive)
        self._queue.append(request)
        if keep_alive and self._head_began and not self._chunked and not self._expect:
            self._heads.remember(self._received, request, max(self._length, 0))
        self._body = []
        self._enter("idle")
        self._silent = True
        if len(self._queue) > _READ_AHEAD and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._phase_since = time.monotonic()

    def _grow_head(self, size: int) -> None:
        self._header_size += size
        if self._header_size > self._limits.max_head:
            self._refuse_head()
            raise _StoppedError

    # Refusals.

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._refuse_with(status, code, message)
        raise _StoppedError

    def _refuse_head(self) -> None:
        limit = self._limits.max_head
        self._refuse_with(431, "headers_too_large", f"the head of the request is over {limit} bytes")

    def _refuse_body(self) -> None:
        limit = self._limits.max_body
        self._refuse(413, "body_too_large", f"the body is over {limit} bytes (serve.max_body_mb)")

    def _refuse_with(self, status: int, code: str, message: str) -> None:
        if self._refusal is None:
            self._refusal = refusal(_target(self._url)[0], status, code, message)

    # Answers.

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
            if self._refusal is not None:
                self._finish(self._refusal)
            elif self._stopping:
                self._transport.close()

    def _deliver(self, response: Response) -> None:
        request, self._busy = self._busy, None
        if request is not None and self._transport is not None:
            self._write(request, response)
            if self._phase == "idle":
                self._enter("idle")
            self._pump()

    def _write(self, request: Request, response: Response) -> None:
        if self._transport is None:
            return
        keep_alive = request.keep_alive and not (self._stopping and not self._queue)
        body = b"" if request.method == b"HEAD" else response.body
        self._transport.write(head(response, keep_alive=keep_alive) + body)
        if not keep_alive:
            self._queue.clear()
            self._refusal = None
            self._closing_at = time.monotonic() + _LINGER_S
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
        transport = self._transport
        if transport is None:
            return
        if self._closing_at:
            if now > self._closing_at:
                transport.abort()
        elif self._write_paused_at and now - self._write_paused_at > _WRITE_STALL_S:
            transport.abort()
        elif self._busy is not None or self._queue:
            return
        elif self._phase == "idle":
            if now - self._phase_since > self._limits.idle_timeout_s:
                transport.close()
        elif self._phase == "head" and now - self._phase_since > self._limits.header_timeout_s:
            if self._silent:
                transport.close()
            else:
                self._refuse_with(408, "timeout", "the head of the request did not arrive in time")
        elif self._phase == "body" and now - self._phase_since > self._limits.body_timeout_s:
            self._refuse_with(408, "timeout", "the body of the request did not arrive in time")
        if self._refusal is not None and not self._closing_at:
            self._pump()

    def stop(self) -> None:
        """Answer what was asked for, then close."""
        self._stopping = True
        if self._busy is None and not self._queue and self._transport is not None:
            self._transport.close()


def _target(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target; a client may send it as it would to a proxy."""
    path, _, query = url.partition(b"?")
    if path[:7].lower() == b"http://":
        path = b"/" + path[7:].partition(b"/")[2]
    return path, query
