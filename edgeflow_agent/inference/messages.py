"""A request, an answer, and what stands between the connection and the application."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

JSON = b"application/json"
OCTETS = b"application/octet-stream"
TEXT = b"text/plain; charset=utf-8"

# The only headers that are kept: what some route reads.
KEPT_HEADERS = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"content-encoding",
        b"content-type",
        b"inference-header-content-length",
        b"tensor-shape",
    }
)

_REASONS = {
    100: b"Continue",
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    408: b"Request Timeout",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request, whole. `headers` are those of KEPT_HEADERS, by name in lower case."""

    method: bytes
    path: bytes
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes | memoryview
    keep_alive: bool = True

    @property
    def text(self) -> bytes:
        """The body for who reads it as text: a large one is copied."""
        return self.body if isinstance(self.body, bytes) else bytes(self.body)


class Response(msgspec.Struct, frozen=True, gc=False):
    """One answer. `headers` are further complete lines, each ending in CRLF."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: bytes = b""


Deliver = Callable[[Response], None]
# Answers at once, or returns None and calls back later, on the event loop.
Application = Callable[[Request, Deliver], Response | None]


_USUAL = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %%d\r\n\r\n" % JSON


def head(response: Response, *, keep_alive: bool) -> bytes:
    """What goes before the body of an answer."""
    if keep_alive and response.status == 200 and response.content_type is JSON and not response.headers:
        return _USUAL % len(response.body)
    return b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s%s\r\n" % (
        response.status,
        _REASONS.get(response.status, b"Status"),
        response.content_type,
        len(response.body),
        response.headers,
        b"" if keep_alive else b"Connection: close\r\n",
    )
