"""What the process of an agent is told about its memory before it serves."""

from __future__ import annotations

import contextlib
import ctypes
import gc

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 2**20


def prepare() -> None:
    """Once, before there are threads and before a model is loaded."""
    # With a heap of glibc's for each thread, what large bodies leave behind would be kept several times.
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        # What is large goes back at once, instead of leaving holes below what is held: glibc else puts all
        # but the largest images on the heap as soon as it has seen a few.
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)
    # What has been imported stays: looked through again and again, it would hold up a request each time.
    gc.freeze()
