"""What devices have counted, over time: summed up by the database, whatever the size of the fleet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any

from sqlalchemy import BigInteger, Integer, cast, func, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from edgeflow_agent.wire.telemetry import LATENCY_BUCKETS, Requests
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain.timeline import Point, Range
from edgeflow_mlflow.services import watched
from edgeflow_mlflow.services.watched import Whose

_Window = models.Window
_SUMS = ("requests", "failed", "latency_sum_s", "observed", "unobserved", "swaps")
_RESOURCES: dict[str, Any] = {
    "cpu_ratio": func.avg,
    "load_ratio": func.avg,
    "rss_bytes": func.max,
    "temperature_c": func.max,
    "queue_peak": func.max,
    "memory_free_bytes": func.min,
    "disk_free_bytes": func.min,
    "disk_free_ratio": func.min,
}
_OUTCOMES = Requests.__struct_fields__


def points(session: Session, whose: Whose, over: Range) -> list[Point]:
    """A point for each step in which a window has ended, in order."""
    where = watched.windows(session, whose)
    place = _place(session, over)
    # By device first: how many windows it has lost is its own count from the beginning.
    by_target = (
        select(
            place.label("place"),
            func.count().label("windows"),
            func.max(_Window.dropped).label("dropped"),
            *(func.sum(getattr(_Window, name)).label(name) for name in _SUMS),
            *(_total(_Window.outcomes[name], name) for name in _OUTCOMES),
            *(_total(_Window.latency_counts[i], f"bucket_{i}") for i in range(len(LATENCY_BUCKETS) + 1)),
            *(
                how(_Window.resources[name].as_float()).label(f"is_{name}")
                for name, how in _RESOURCES.items()
            ),
        )
        .where(*where, _Window.end_at >= over.start, _Window.end_at < over.end)
        .group_by(place, _Window.target_id)
        .subquery()
    )
    inner = by_target.c
    totals = [name for name in inner.keys() if name != "place" and not name.startswith("is_")]  # noqa: SIM118
    rows = session.execute(
        select(
            inner.place,
            func.count().label("targets"),
            *(func.sum(inner[name]).label(name) for name in totals),
            *(how(inner[f"is_{name}"]).label(f"is_{name}") for name, how in _RESOURCES.items()),
        )
        .group_by(inner.place)
        .order_by(inner.place)
    ).mappings()
    return [_point(row, over) for row in rows]


def _total(item: Any, name: str) -> ColumnElement[Any]:
    return func.sum(func.coalesce(item.as_float(), 0)).label(name)


def _place(session: Session, over: Range) -> ColumnElement[Any]:
    """The number of the step in which a window ended."""
    begin = int(over.start.timestamp())
    if session.get_bind().dialect.name == "sqlite":
        seconds: ColumnElement[Any] = cast(func.strftime("%s", _Window.end_at), Integer)
    else:
        seconds = cast(func.floor(func.extract("epoch", _Window.end_at)), BigInteger)
    return (seconds - begin) // over.step_s


def _point(row: Any, over: Range) -> Point:
    begin = over.start.astimezone(UTC).replace(microsecond=0)
    counts: Sequence[int] = [int(row[f"bucket_{i}"]) for i in range(len(LATENCY_BUCKETS) + 1)]
    return Point(
        at=begin + timedelta(seconds=int(row["place"]) * over.step_s),
        windows=int(row["windows"]),
        targets=int(row["targets"]),
        outcomes={name: int(row[name]) for name in _OUTCOMES},
        requests=int(row["requests"]),
        failed=int(row["failed"]),
        latency_counts=counts,
        latency_sum_s=float(row["latency_sum_s"]),
        observed=int(row["observed"]),
        unobserved=int(row["unobserved"]),
        swaps=int(row["swaps"]),
        dropped=int(row["dropped"]),
        resources={name: float(row[f"is_{name}"]) for name in _RESOURCES if row[f"is_{name}"] is not None},
    )
