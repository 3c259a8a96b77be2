"""A large body, which goes from the socket straight to its place: the parser would copy it twice."""

from __future__ import annotations

import numpy as np
from msgspec import structs

from edgeflow_agent.inference.messages import Request

# What of a body has to be missing yet for this to be worth it.
LARGE = 64 * 1024


class LargeBody:
    """The body of one request, as far as it has come."""

    def __init__(self, head: Request, length: int, begun: bytes | memoryview) -> None:
        """`head` is the request without its body. Raise MemoryError."""
        self._head = head
        # Not written to: what is announced and never comes takes no memory.
        self._data = memoryview(np.empty(length, np.uint8))  # type: ignore[arg-type]
        self._data[: len(begun)] = begun
        self._filled = len(begun)

    def rest(self) -> memoryview:
        """Where the next bytes go."""
        return self._data[self._filled :]

    def grow(self, count: int) -> Request | None:
        """So many bytes have come; the request, if it is whole now."""
        self._filled += count
        return structs.replace(self._head, body=self._data) if self._filled == len(self._data) else None
