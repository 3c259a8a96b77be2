"""Requests that were kept whole, so that a surprising answer can be looked at and asked for again."""

from __future__ import annotations

import collections
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.store import durable

logger = logging.getLogger(__name__)

# However small they are: each is a file.
_MOST = 2000
_NAME = re.compile(r"[0-9]{16}-[0-9a-f]{8}")


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """One request: `inputs` by name as `POST /infer` takes them, `outputs` as it answers them."""

    id: str
    at: datetime
    model: str
    version: str
    digest: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One that is kept; `size` in bytes of JSON."""

    id: str
    at: datetime
    size: int


class CaptureStore:
    """JSON files in one folder, named so that they sort by time; the oldest go when there is no room."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._kept: collections.deque[tuple[Path, int]] | None = None  # the oldest first; None: not known yet
        self._used = 0

    def keep(
        self,
        *,
        model: str,
        version: str,
        digest: str,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
    ) -> None:
        """Keep a request; inputs and outputs are plain data. One that is larger than all the room is left
        out. Raise OSError."""
        name = f"{time.time_ns() // 1000:016d}-{secrets.token_hex(4)}"
        capture = Capture(
            id=name,
            at=datetime.now(UTC),
            model=model,
            version=version,
            digest=digest,
            inputs=dict(inputs),
            outputs=dict(outputs),
        )
        content = msgspec.json.encode(capture)
        if len(content) > self._max_bytes:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        kept = self._with_room(len(content))
        # Not synced: a power cut may take samples with it.
        temporary = self._folder / f".{name}.new"
        try:
            temporary.write_bytes(content)
            temporary.replace(self._file(name))
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()  # where the disk is full, it holds the last of it
            raise
        kept.append((self._file(name), len(content)))
        self._used += len(content)

    def listed(self, *, limit: int) -> list[Listed]:
        """The newest, the newest first."""
        found = []
        for file in sorted(self._files(), reverse=True)[:limit]:
            with contextlib.suppress(OSError):
                at = datetime.fromtimestamp(int(file.stem.partition("-")[0]) / 1e6, UTC)
                found.append(Listed(id=file.stem, at=at, size=file.stat().st_size))
        return found

    def content(self, name: str) -> bytes:
        """The JSON of one; raise StateError when it is not there (any more)."""
        if _NAME.fullmatch(name):
            with contextlib.suppress(OSError):
                return durable.patiently(self._file(name).read_bytes)
        raise errors.StateError(
            f"there is no capture {name[:60]!r} on this device: the oldest are dropped when there is no room",
            reason="no_capture",
        )

    def _with_room(self, size: int) -> collections.deque[tuple[Path, int]]:
        kept = self._kept
        if kept is None:
            durable.sweep(self._folder)
            kept = collections.deque((file, file.stat().st_size) for file in sorted(self._files()))
            self._kept, self._used = kept, sum(size for _, size in kept)
        while kept and (self._used + size > self._max_bytes or len(kept) >= _MOST):
            file, length = kept[0]
            file.unlink(missing_ok=True)
            kept.popleft()
            self._used -= length
        return kept

    def _files(self) -> Iterator[Path]:
        return (file for file in self._folder.glob("*.json") if _NAME.fullmatch(file.stem))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"
