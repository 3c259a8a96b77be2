"""The hub's lease: a row with a fencing number that rises whenever the holder changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from edgeflow_mlflow.db import models
from edgeflow_mlflow.services.state import State

HUB = "hub"
TTL = timedelta(seconds=15)
RENEW_S = 5.0


def take(state: State, holder: str, *, alone_on: str | None) -> int | None:
    """Take the lease when it is free, over, or was held from the host named by `alone_on`, whose lock
    file the caller holds, so the former holder there is dead. The fence, or None while another has it."""
    now = state.now()
    with state.database.write() as session:
        row = session.get(models.Lease, HUB, with_for_update=True)
        if row is None:
            session.add(models.Lease(name=HUB, holder=holder, fence=1, expires_at=now + TTL, detail={}))
            return 1
        same_host = alone_on is not None and row.holder.partition("/")[0] == alone_on
        if row.expires_at > now and not same_host:
            return None
        row.holder = holder
        row.fence += 1
        row.expires_at = now + TTL
        row.detail = {}
        return row.fence


def renew(state: State, fence: int, detail: dict[str, Any]) -> bool:
    """Keep the lease and say what the hub offers; False when another holds it by now."""
    with state.database.write() as session:
        row = session.get(models.Lease, HUB, with_for_update=True)
        if row is None or row.fence != fence:
            return False
        row.expires_at = state.now() + TTL
        row.detail = detail
        return True


def release(state: State, fence: int) -> None:
    """Let the next one take over at once."""
    with state.database.write() as session:
        row = session.get(models.Lease, HUB, with_for_update=True)
        if row is not None and row.fence == fence:
            row.expires_at = state.now()
            row.detail = {}


def current(state: State) -> models.Lease | None:
    """The lease of a living hub, or None."""
    with state.database.read() as session:
        row = session.get(models.Lease, HUB)
    return row if row is not None and row.expires_at > state.now() else None
