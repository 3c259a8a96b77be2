"""Counts for `/metrics` that only ever grow, kept where the rows that were counted do not stay."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import extract, func, select
from sqlalchemy.orm import Session

from edgeflow_agent import typed
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services.state import State

DELIVERIES = "deliveries"
WINDOWS = "windows"
REQUESTS = "requests"
FAILED = "failed_requests"
_UP_TO = "windows_counted_up_to"
# A window is committed within so long of its receipt: until then it may still appear.
_SETTLED = timedelta(seconds=30)
# After a long absence the hub counts what came meanwhile in slices of so much.
_SLICE = timedelta(hours=1)
_NEWLY = timedelta(minutes=5)


def add(session: Session, name: str, labels: Mapping[str, str], by: int) -> None:
    """Count. Only the hub does, so no two do at once."""
    series = msgspec.json.encode(dict(sorted(labels.items()))).decode()
    row = session.get(models.Counter, (name, series))
    if row is None:
        session.add(models.Counter(name=name, series=series, value=by))
        session.flush()
    else:
        row.value += by


def read(session: Session, name: str) -> list[tuple[dict[str, str], int]]:
    """All series of a count."""
    rows = session.scalars(
        select(models.Counter).where(models.Counter.name == name).order_by(models.Counter.series)
    )
    return [(typed.read(dict[str, str], row.series), row.value) for row in rows]


def count_windows(state: State) -> None:
    """Count the windows of telemetry that came since the last look, and their requests, each once."""
    settled = state.now() - _SETTLED
    window = models.Window
    with state.database.write() as session:
        fact = session.get(models.Fact, _UP_TO)
        if fact is None:
            oldest = session.scalar(select(func.min(window.received_at)).where(window.span == "raw"))
            since = min(oldest or settled, settled) - timedelta(microseconds=1)
            fact = models.Fact(name=_UP_TO, value=since.isoformat())
            session.add(fact)
        since = datetime.fromisoformat(fact.value)
        until = min(settled, since + _SLICE)
        if until <= since:
            return
        rows = session.execute(
            select(
                window.model_name,
                window.model_version,
                func.count(),
                func.sum(window.requests),
                func.sum(window.failed),
            )
            .where(window.span == "raw", window.received_at > since, window.received_at <= until)
            .group_by(window.model_name, window.model_version)
        ).all()
        for model, version, windows, requests, failed in rows:
            labels = {"model": model, "version": version}
            add(session, WINDOWS, {}, int(windows))
            add(session, REQUESTS, labels, int(requests or 0))
            add(session, FAILED, labels, int(failed or 0))
        fact.value = until.isoformat()


def lag_seconds(session: Session, now: datetime) -> float | None:
    """How old the newest windows were at most when they came; None when none came lately."""
    window = models.Window
    age = extract("epoch", window.received_at) - extract("epoch", window.end_at)
    found = session.scalar(
        select(func.max(age)).where(window.span == "raw", window.received_at > now - _NEWLY)
    )
    return None if found is None else max(0.0, float(found))
