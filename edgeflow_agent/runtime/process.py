"""What the process of an agent is told about its memory before it serves."""

from __future__ import annotations

import contextlib
import ctypes
import gc

_M_ARENA_MAX = -8  # of malloc.h


def prepare() -> None:
    """Once, before there are threads and before a model is loaded."""
    # With a heap of glibc's for each thread, what large bodies leave behind would be kept several times.
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    # What has been imported stays: looked through again and again, it would hold up a request each time.
    gc.freeze()
