"""The named places where a test may cut the power. In normal operation each costs one comparison.

`EDGEFLOW_CRASH_AT=<point>` kills the process there with SIGKILL; `<point>@3` at the third passage.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "EDGEFLOW_CRASH_AT"

# Every point that `reach` may be called with, in about the order in which an install passes them.
POINTS: tuple[str, ...] = (
    "journal.before_rename",
    "journal.after_rename",
    "ratchet.before_rename",
    "ratchet.after_rename",
    "lives.before_rename",
    "lives.after_rename",
    "spool.before_commit",
    "spool.after_commit",
    "state.accepted",
    "state.downloading",
    "download.part_written",
    "blob.before_rename",
    "blob.after_rename",
    "state.verifying",
    "release.begun",
    "release.files_linked",
    "release.before_rename",
    "release.after_rename",
    "state.loading",
    "load.trial_passed",
    "load.loaded",
    "state.trial",
    "point.before_previous",
    "point.after_previous",
    "point.before_current",
    "point.after_current",
    "swap.done",
    "state.deployed",
    "state.rolled_back",
    "state.failed",
    "state.cancelled",
    "gc.after_trash",
    "adopt.before_rename",
    "adopt.after_rename",
    "remove.after_previous",
    "remove.after_current",
    "settle.before",
    "settle.after",
    "fall.before_rename",
    "fall.after_rename",
    "back.before_current",
    "back.after_current",
    "back.after_previous",
    "fall.reported",
    "rotate.answered",
    "rotate.written",
)

_wanted, _, _passage = os.environ.get(VARIABLE, "").partition("@")
_left = int(_passage) if _passage.isdigit() else 1


def reach(point: str) -> None:
    """Die here when this point was asked for."""
    global _left
    if not _wanted or point != _wanted:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
