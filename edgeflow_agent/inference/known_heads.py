"""Heads of requests that the parser has read before.

A client that keeps its connection sends the same head with every request. What the parser makes of bytes
between two messages depends on nothing but the bytes, so the same bytes need no second parsing.
"""

from __future__ import annotations

from edgeflow_agent.inference.messages import Request

_MOST = 128
LONGEST = 1024
_END = b"\r\n\r\n"


class KnownHeads:
    """Shared by all connections of a server, bounded in number and in length."""

    def __init__(self) -> None:
        self._requests: dict[bytes, tuple[Request, int]] = {}

    def find(self, data: bytes) -> tuple[Request, int, int] | None:
        """Where `data` begins with a known head: the request without its body, the length that the body will
        have, and where it begins. `data` begins where a request begins."""
        end = data.find(_END, 0, LONGEST) + 4
        if end < 4:
            return None
        known = self._requests.get(data[:end])
        return None if known is None else (known[0], known[1], end)

    def remember(self, data: bytes, request: Request, length: int) -> None:
        """Keep the head at the beginning of `data`, which the parser took for this request without its body,
        of `length` bytes as its Content-Length says, on a connection that is kept."""
        end = data.find(_END, 0, LONGEST) + 4
        if end < 4:
            return
        if len(self._requests) >= _MOST:
            self._requests.clear()  # many clients, or one that plays games: the parser is quick enough
        self._requests[data[:end]] = (request, length)
