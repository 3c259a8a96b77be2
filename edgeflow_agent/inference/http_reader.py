"""From received bytes to whole requests, or to a refusal: parsing by llhttp, limits by us."""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import httptools
from msgspec import structs

from edgeflow_agent.inference.known_heads import LONGEST, KnownHeads
from edgeflow_agent.inference.large_body import LARGE, LargeBody
from edgeflow_agent.inference.messages import KEPT_HEADERS, Request, Response
from edgeflow_agent.inference.refusals import refusal

logger = logging.getLogger(__name__)

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
    """Stops the parser; what to answer stands in `RequestReader.refusal`."""


class RequestReader:
    """What one client sends. After `receive`, look at `requests` and `refusal`; what follows a refusal is not
    read."""

    def __init__(
        self, limits: Limits, heads: KnownHeads, buffer: memoryview, go_ahead: Callable[[], None]
    ) -> None:
        """`buffer` is for what is being received: all readers of a loop may share one. `go_ahead` is called
        when a client waits for leave to send its body."""
        self.requests: collections.deque[Request] = collections.deque()
        self.refusal: Response | None = None
        self.phase = "head"
        self.phase_since = time.monotonic()
        self.silent = True  # nothing of the present request has come yet
        self._limits = limits
        self._heads = heads
        self._buffer = buffer
        self.place = buffer  # where the next bytes go
        self._go_ahead = go_ahead
        self._parser: Any = httptools.HttpRequestParser(self)
        self._large: LargeBody | None = None
        self._received = b""
        self._begun = 0  # requests that began within the bytes being parsed
        self._at_start = True  # whether these bytes began with a request
        self._body: list[bytes] = []
        self._begin_message()

    def close(self) -> None:
        """Let go of everything: parser and reader refer to each other and would wait for the garbage
        collector."""
        self._parser = None
        self._large = None
        self.requests.clear()

    def enter(self, phase: str) -> None:
        """`head`, `body` or `idle`, from now on."""
        self.phase = phase
        self.phase_since = time.monotonic()

    def receive(self, count: int) -> None:
        """So many bytes have come to `place`."""
        if self._large is not None:
            self._receive_large(self._large, count)
        elif self.refusal is None:
            self._receive(count)

    def _receive(self, count: int) -> None:
        if self.phase == "idle":
            known = self._heads.find(bytes(self._buffer[: min(count, LONGEST)]))
            if known is not None and self._is_all(count, *known):
                return
            self.enter("head")
        data = bytes(self._buffer[:count])
        self._at_start, self.silent = self.silent, False
        self._begun = 0
        self._received = data
        self._feed(data)
        if self.phase == "body" and self._length - self._body_size >= LARGE and self.refusal is None:
            request = self._request()
            self._remember(request)
            self._begin_large(request, self._length, b"".join(self._body))
            # This one would wait for a body that it will never see.
            self._parser = httptools.HttpRequestParser(self)

    def _is_all(self, count: int, request: Request, length: int, end: int) -> bool:
        """Whether what has come is this request, with a body of that length after `end`, and nothing else."""
        missing = length - count + end
        if missing == 0:
            self.requests.append(structs.replace(request, body=bytes(self._buffer[end:count])))
            self.phase_since = time.monotonic()
            return True
        if missing < LARGE:
            return False
        self._begin_large(request, length, self._buffer[end:count])
        return True

    def _receive_large(self, large: LargeBody, count: int) -> None:
        request = large.grow(count)
        if self.refusal is not None:
            self._large, self.place = None, self._buffer
        elif request is not None:
            self._whole(request)
        else:
            self.place = large.rest()

    def _begin_large(self, request: Request, length: int, begun: bytes | memoryview) -> None:
        self.enter("body")
        self.silent = False
        try:
            self._large = LargeBody(request, length, begun)
            self.place = self._large.rest()
        except MemoryError:
            self.refuse(request.path, 503, "no_memory", f"there is no memory for {length} bytes of body")

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak nothing else; the request itself is answered, then the connection ends.
            self._refuse(400, "upgrade", "this server speaks HTTP/1.1 only")
        except httptools.HttpParserCallbackError as error:
            if self.refusal is None:
                logger.error("parsing a request failed", exc_info=error)
                self._refuse(500, "internal", "the request could not be read")
        except httptools.HttpParserError as error:
            self._refuse(400, "bad_request", f"not a valid HTTP request: {error}")
        else:
            if self.phase == "head" and not self.silent:
                # A head that began within these bytes is at most as long as they are.
                self._head_size += 0 if self._begun else len(data)
                if self._head_size > self._limits.max_head:
                    # A single line that never ends gives the parser nothing to call back about.
                    self._refuse_head()

    def _whole(self, request: Request) -> None:
        self.requests.append(request)
        self._body.clear()
        self._large, self.place = None, self._buffer
        self.enter("idle")
        self.silent = True

    def _request(self) -> Request:
        """What the parser has made of the head."""
        url = self._url
        path, query = (url, b"") if url[:1] == b"/" and b"?" not in url else _target(url)
        return Request(self._method, path, query, self._headers, b"", self._keep_alive)

    def _remember(self, head: Request) -> None:
        """Only a head at the very beginning of what was received belongs to this request for sure."""
        alone = self._at_start and self._begun == 1
        if alone and self._keep_alive and not self._chunked and not self._expect:
            self._heads.remember(self._received, head, max(self._length, 0))

    # What the parser calls.

    def _begin_message(self) -> None:
        self._url = b""
        self._head_size = 0
        self._header_size = 0
        self._length = -1
        self._chunked = False
        self._host = False
        self._expect = b""
        self._method = b""
        self._keep_alive = False
        self._headers: dict[bytes, bytes] = {}
        self._body = []
        self._body_size = 0

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._begin_message()
        self._begun += 1
        if self.phase != "head":
            self.enter("head")
        self.silent = False

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
                self._stop(400, "bad_request", "Host was sent twice")
            self._host = True
        elif lowered == b"content-length":
            if self._length >= 0:
                self._stop(400, "bad_request", "Content-Length was sent twice")
            if not value.isdigit() or len(value) > 18:
                self._stop(400, "bad_request", "Content-Length is not a number")
            self._length = int(value)
        elif lowered == b"transfer-encoding":
            if value.strip().lower() != b"chunked" or self._chunked:
                self._stop(501, "transfer_encoding", "the only transfer encoding known here is chunked")
            self._chunked = True
        else:
            self._expect = value.strip().lower()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        is_modern = self._parser.get_http_version() == "1.1"
        if self._chunked and self._length >= 0:
            self._stop(400, "bad_request", "Content-Length and Transfer-Encoding exclude each other")
        if not self._host and is_modern:
            self._stop(400, "bad_request", "the Host header is missing")
        if self._length > self._limits.max_body:
            self._stop_at_body()
        if self._expect:
            if self._expect != b"100-continue":
                self._stop(417, "expectation", "the only expectation known here is 100-continue")
            self._go_ahead()
        self._method = self._parser.get_method()
        # A client of HTTP/1.0 gets its answer and the end of the connection.
        self._keep_alive = is_modern and self._parser.should_keep_alive()
        self.enter("body")

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._body_size += len(body)
        if self._body_size > self._limits.max_body:
            self._stop_at_body()
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        head = self._request()
        self._remember(head)
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._whole(structs.replace(head, body=body))

    def _grow_head(self, size: int) -> None:
        self._header_size += size
        if self._header_size > self._limits.max_head:
            self._refuse_head()
            raise _StoppedError

    # Refusals.

    def refuse(self, path: bytes, status: int, code: str, message: str) -> None:
        """Read no further; the first refusal counts."""
        if self.refusal is None:
            self.refusal = refusal(path, status, code, message)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.refuse(_target(self._url)[0], status, code, message)

    def refuse_late(self) -> None:
        """The head or the body did not come in time."""
        self._refuse(408, "timeout", f"the {self.phase} of the request did not arrive in time")

    def _refuse_head(self) -> None:
        limit = self._limits.max_head
        self._refuse(431, "headers_too_large", f"the head of the request is over {limit} bytes")

    def _stop(self, status: int, code: str, message: str) -> None:
        self._refuse(status, code, message)
        raise _StoppedError

    def _stop_at_body(self) -> None:
        limit = self._limits.max_body
        self._stop(413, "body_too_large", f"the body is over {limit} bytes (serve.max_body_mb)")


def _target(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target; a client may send it as it would to a proxy."""
    path, _, query = url.partition(b"?")
    if path[:7].lower() == b"http://":
        path = b"/" + path[7:].partition(b"/")[2]
    return path, query
