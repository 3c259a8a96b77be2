"""What a server that was killed in the middle has left in its folder."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from pathlib import Path

logger = logging.getLogger(__name__)

CHECKING = "checking-"
INCOMING = "incoming-"
# `tmp` and eight characters: what releases before this one named the folders of their checks.
_PATTERNS = (
    "publishing-*",
    f"{CHECKING}*",
    "tmp????????",
    f"blobs/{INCOMING}*",
    f"keys/{INCOMING}*",
)
_OLD_S = 86_400.0


def remove(data: Path) -> None:
    """Remove what nobody has touched for a day: younger ones may belong to another worker that lives.
    Several workers may do this at once."""
    oldest = time.time() - _OLD_S
    for pattern in _PATTERNS:
        for path in data.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # another worker was quicker
                if path.lstat().st_mtime < oldest:
                    _remove(path)
                    logger.info("removed %s, which a server that was killed had left", path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
