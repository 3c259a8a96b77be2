"""Who served what, and when: an interval for each bundle that a device said it serves.

Times are the server's, at the moment at which it heard of the change: a device that swaps while it is offline
is heard of when it comes back, and its own clock may lie. A device that goes away still serves what it had.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import one_of
from edgeflow_mlflow.services.lineage.edges import CHUNK

_Served = models.Served


def note(session: Session, target_id: str, *, digest: str, execution_id: str, now: datetime) -> None:
    """A device, which the caller has locked, says what it serves; empty `digest`: nothing."""
    current = open_interval(session, target_id)
    bundle_id = bundle_of(session, digest=digest, execution_id=execution_id)
    if current is not None:
        if current.digest == digest and current.bundle_id == bundle_id:
            return
        current.until = now
    if digest:
        session.add(
            _Served(
                target_id=target_id,
                digest=digest,
                bundle_id=bundle_id,
                execution_id=execution_id[:64],
                since=now,
            )
        )
    session.flush()


def end(session: Session, target_id: str, now: datetime) -> None:
    """A device is forgotten."""
    session.execute(
        update(_Served).where(_Served.target_id == target_id, _Served.until.is_(None)).values(until=now)
    )


def open_interval(session: Session, target_id: str) -> models.Served | None:
    """What a device serves, as far as it has said."""
    return session.scalars(
        select(_Served)
        .where(_Served.target_id == target_id, _Served.until.is_(None))
        .order_by(_Served.since.desc(), _Served.id.desc())
        .limit(1)
    ).first()


def at(session: Session, target_id: str, moment: datetime) -> models.Served | None:
    """What a device served at a moment."""
    found = session.scalars(
        select(_Served)
        .where(_Served.target_id == target_id, _Served.since <= moment)
        .order_by(_Served.since.desc(), _Served.id.desc())
        .limit(1)
    ).first()
    return found if found is not None and (found.until is None or found.until > moment) else None


def bundle_of(session: Session, *, digest: str, execution_id: str) -> str:
    """The bundle that a digest is. The same bytes may be registered under several names: the execution that
    brought them says which it was; without one, the newest."""
    if not digest:
        return ""
    if execution_id:
        named = session.execute(
            select(models.Bundle.id, models.Bundle.digest)
            .join(models.Rollout, models.Rollout.bundle_id == models.Bundle.id)
            .join(models.Execution, models.Execution.rollout_id == models.Rollout.id)
            .where(models.Execution.id == execution_id)
        ).first()
        if named is not None and named.digest == digest:
            return str(named.id)
    return (
        session.scalar(
            select(models.Bundle.id)
            .where(models.Bundle.digest == digest)
            .order_by(models.Bundle.created_at.desc())
            .limit(1)
        )
        or ""
    )


def on_bundles(
    session: Session,
    bundle_ids: Collection[str],
    *,
    moment: datetime | None,
    after: tuple[str, str] | None = None,
    limit: int,
) -> list[models.Served]:
    """Intervals of devices that serve one of the bundles now, or served it at a moment, in the order of
    (bundle, target); `after` is the place at which the last page ended."""
    found: list[models.Served] = []
    remaining = sorted(bundle_ids)
    if after is not None:
        remaining = [bundle for bundle in remaining if bundle >= after[0]]
    taken = 0
    size = 8  # a page is often full after a few
    while remaining[taken:] and len(found) < limit:
        query = select(_Served).where(one_of(session, _Served.bundle_id, remaining[taken : taken + size]))
        taken, size = taken + size, min(size * 8, CHUNK)
        if moment is None:
            query = query.where(_Served.until.is_(None))
        else:
            query = query.where(_Served.since <= moment, or_(_Served.until.is_(None), _Served.until > moment))
        if after is not None:
            bundle, target = after
            query = query.where(
                or_(_Served.bundle_id > bundle, (_Served.bundle_id == bundle) & (_Served.target_id > target))
            )
        found += session.scalars(
            query.order_by(_Served.bundle_id, _Served.target_id).limit(limit - len(found))
        )
    return found


def since(session: Session, target_id: str, moment: datetime) -> list[models.Served]:
    """What a device served from a moment on, the newest first; what it served at that moment is the last."""
    return list(
        session.scalars(
            select(_Served)
            .where(_Served.target_id == target_id, or_(_Served.until.is_(None), _Served.until >= moment))
            .order_by(_Served.since.desc(), _Served.id.desc())
            .limit(1000)
        )
    )


def history(session: Session, target_id: str, *, limit: int = 100) -> list[models.Served]:
    """Everything that a device served, the newest first."""
    return list(
        session.scalars(
            select(_Served)
            .where(_Served.target_id == target_id)
            .order_by(_Served.since.desc(), _Served.id.desc())
            .limit(limit)
        )
    )
