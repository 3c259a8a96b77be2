"""The hub's lease: a row with a fencing number that rises whenever the holder changes."""

from __future__ import annotations

import contextlib
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.engine import FenceLostError
from edgeflow_mlflow.services.state import State

HUB = "hub"
TTL = timedelta(seconds=15)
RENEW_S = 2.0
_LOCK = "lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identity(lock: Path) -> str | None:
    """Which lock file a path means: its number on its device, of this boot of this machine. A host name
    would not tell: containers and copied machines share theirs. None where the system has no such word."""
    try:
        found = lock.stat()
        return f"{_BOOT_ID.read_text().strip()}/{found.st_dev}/{found.st_ino}"
    except OSError:
        return None


def take(state: State, holder: str, *, alone_on: str | None) -> int | None:
    """Take the lease when it is free, over, or was taken under the lock file `alone_on` (see `identity`),
    which the caller holds by now, so the former holder is dead. The fence, or None while another has it."""
    now = state.now()
    with state.database.write() as session:
        row = session.get(models.Lease, HUB, with_for_update=True)
        if row is None:
            detail = {_LOCK: alone_on}
            session.add(models.Lease(name=HUB, holder=holder, fence=1, expires_at=now + TTL, detail=detail))
            return 1
        same_lock = alone_on is not None and row.detail.get(_LOCK) == alone_on
        if row.expires_at > now and not same_lock:
            return None
        row.holder = holder
        row.fence += 1
        row.expires_at = now + TTL
        row.detail = {_LOCK: alone_on}
        return row.fence


def renew(state: State, fence: int, detail: dict[str, Any]) -> bool:
    """Keep the lease and say what the hub offers; False when another holds it by now."""
    with state.database.write() as session:
        row = session.get(models.Lease, HUB, with_for_update=True)
        if row is None or row.fence != fence:
            return False
        row.expires_at = state.now() + TTL
        row.detail = {**detail, _LOCK: row.detail.get(_LOCK)}
        return True


def release(state: State, fence: int) -> None:
    """Let the next one take over at once; nothing to do when it has already."""
    with contextlib.suppress(FenceLostError), state.database.write() as session:
        row = session.get(models.Lease, HUB, with_for_update=True)
        if row is not None and row.fence == fence:
            row.expires_at = state.now()
            row.detail = {}


def holder_name(pid: int) -> str:
    """What the process calls itself when it takes the lease."""
    return f"{socket.gethostname()}/{pid}"


def silence(state: State, holder: str) -> timedelta | None:
    """How long ago this holder has said that it lives; None when it does not hold the lease."""
    with state.database.read() as session:
        row = session.get(models.Lease, HUB)
    return state.now() - (row.expires_at - TTL) if row is not None and row.holder == holder else None


def current(state: State) -> models.Lease | None:
    """The lease of a living hub, or None."""
    with state.database.read() as session:
        row = session.get(models.Lease, HUB)
    return row if row is not None and row.expires_at > state.now() else None
