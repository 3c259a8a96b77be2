"""Keep telemetry bounded: minutes become hours, hours become days, and days go. What was merged or deleted
is remembered by its numbers, so that a device that sends it again is told that it is stored."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, union
from sqlalchemy.orm import Session

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.wire import telemetry as wire
from edgeflow_agent.wire.telemetry import TelemetryWindow
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import merging, retention
from edgeflow_mlflow.domain.retention import Span
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

# So many windows in one transaction, and so many transactions in one look.
_SLICE = 150
_MOST_SLICES = 400
_GONE_SLICE = 1000

_Window = models.Window
# What stands beside the windows of a target.
_OF_TARGETS: tuple[tuple[Any, ...], ...] = (
    (models.UnjudgedWindow, models.UnjudgedWindow.target_id),
    (models.Drift, models.Drift.scope_id, models.Drift.scope == "target"),
    (models.MergedWindows, models.MergedWindows.target_id),
    (models.RefusedTelemetry, models.RefusedTelemetry.target_id),
    (models.LearnedBaseline, models.LearnedBaseline.target_id),
)


def retain(state: State) -> int:
    """Merge and delete what is old enough; how many windows are gone."""
    gone = forget_gone(state)
    now, config = state.now(), state.config
    for span, into, age in (
        (Span.RAW, Span.HOUR, timedelta(hours=config["telemetry.raw_h"])),
        (Span.HOUR, Span.DAY, timedelta(days=config["telemetry.hourly_days"])),
        (Span.DAY, None, timedelta(days=config["telemetry.daily_days"])),
    ):
        for _ in range(_MOST_SLICES):
            count = _slice(state, span, into, now - age)
            gone += count
            if not count:
                break
    return gone


def forget_gone(state: State) -> int:
    """Delete what was seen on targets that were deleted since, and the verdicts on it; how many windows."""
    with state.database.read() as session:
        gone = _gone(session)
    count = 0
    for target_id in gone:
        with state.database.write() as session:
            for table, column, *more in _OF_TARGETS:
                where = (column == target_id, *more)
                session.execute(delete(table).where(*where).execution_options(synchronize_session=False))
        for _ in range(_MOST_SLICES):
            with state.database.write() as session:
                ids = session.scalars(
                    select(_Window.id).where(_Window.target_id == target_id).limit(_GONE_SLICE)
                ).all()
                _remove(session, ids)
            count += len(ids)
            if len(ids) < _GONE_SLICE:
                break
    return count


def _gone(session: Session) -> Sequence[str]:
    # From each target of the index to the next one: millions of windows are of a few thousand targets.
    first = select(func.min(_Window.target_id).label("id")).cte(recursive=True)
    following = select(func.min(_Window.target_id)).where(_Window.target_id > first.c.id).scalar_subquery()
    walk = first.union_all(select(following).where(first.c.id.is_not(None)))
    known = select(models.Target.id)
    parts = [select(walk.c.id).where(walk.c.id.is_not(None), walk.c.id.not_in(known))]
    parts += [
        select(column).where(column.not_in(known), *more).distinct() for _, column, *more in _OF_TARGETS
    ]
    return session.scalars(union(*parts)).all()


def _slice(state: State, span: Span, into: Span | None, before: datetime) -> int:
    """Some windows of the target with the oldest one. Merged windows carry the moment at which the last of
    them was received, so what is old is found the same way for all."""
    with state.database.write() as session:
        oldest = session.scalar(
            select(_Window.target_id)
            .where(_Window.span == span.value, _Window.received_at < before)
            .order_by(_Window.received_at)
            .limit(1)
        )
        if oldest is None:
            return 0
        rows = session.scalars(
            select(_Window)
            .where(_Window.target_id == oldest, _Window.span == span.value, _Window.received_at < before)
            .order_by(_Window.end_at, _Window.id)
            .limit(_SLICE)
        ).all()
        if span is Span.RAW:
            _remember(session, oldest, rows)
        if into is not None:
            for bucket, part in itertools.groupby(rows, key=lambda row: retention.bucket(row.end_at, into)):
                _merge(session, into, bucket, list(part))
        _remove(session, [row.id for row in rows])
    return len(rows)


def _remove(session: Session, ids: Sequence[int]) -> None:
    for table, column in (
        (models.UnjudgedWindow, models.UnjudgedWindow.window_id),
        (_Window, _Window.id),
    ):
        session.execute(delete(table).where(column.in_(ids)).execution_options(synchronize_session=False))


def _remember(session: Session, target_id: str, rows: Iterable[models.Window]) -> None:
    merged = models.MergedWindows
    numbers: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row.boot is not None and row.seq is not None:
            numbers[row.boot].append(row.seq)
    for boot, seqs in numbers.items():
        mine = (merged.target_id == target_id, merged.boot == boot)
        before = session.execute(select(merged.first_seq, merged.last_seq).where(*mine)).all()
        ranges = [(first, last) for first, last in before]
        after = retention.joined(ranges, seqs)
        gone, new = set(ranges) - set(after), set(after) - set(ranges)
        if gone:
            session.execute(delete(merged).where(*mine, merged.first_seq.in_([first for first, _ in gone])))
        if new:
            session.execute(
                insert(merged),
                [
                    {"target_id": target_id, "boot": boot, "first_seq": first, "last_seq": last}
                    for first, last in sorted(new)
                ],
            )


def _merge(session: Session, into: Span, bucket: datetime, rows: Sequence[models.Window]) -> None:
    """One window for each model and baseline of these, which ended in one hour or day; what was merged into
    it before takes part."""
    names = ("deployment_id", "model_name", "model_version", "digest", "baseline_sha256", "is_learned")

    def kind(row: models.Window) -> tuple[Any, ...]:
        return tuple(getattr(row, name) for name in names)

    earlier = session.scalars(
        select(_Window).where(
            _Window.target_id == rows[0].target_id,
            _Window.span == into.value,
            _Window.end_at > bucket,
            _Window.end_at <= bucket + retention.LENGTH[into],
        )
    ).all()
    groups: dict[tuple[Any, ...], list[models.Window]] = defaultdict(list)
    for row in rows:
        groups[kind(row)].append(row)
    for key, group in groups.items():
        before = [row for row in earlier if kind(row) == key]
        _remove(session, [row.id for row in before])
        together = one([*before, *group]) | dict(zip(names, key, strict=True))
        session.execute(insert(_Window), [together | {"span": into.value}])


def one(rows: Sequence[models.Window]) -> dict[str, Any]:
    """The columns of a single window over all of these, but for those that they share."""
    payload, refused = _payload(rows)
    newest = max(rows, key=lambda row: row.end_at)
    texts = [row.refused for row in rows if row.refused]
    return {
        "target_id": rows[0].target_id,
        "boot": None,
        "seq": None,
        "start_at": min(row.start_at for row in rows),
        "end_at": newest.end_at,
        "received_at": max(row.received_at for row in rows),
        "seconds": sum(row.seconds for row in rows),
        "requests": sum(row.requests for row in rows),
        "failed": sum(row.failed for row in rows),
        "outcomes": merging.counts(row.outcomes for row in rows),
        "latency_counts": merging.histogram(row.latency_counts for row in rows),
        "latency_sum_s": sum(row.latency_sum_s for row in rows),
        "observed": sum(row.observed for row in rows),
        "unobserved": sum(row.unobserved for row in rows),
        "swaps": sum(row.swaps for row in rows),
        "dropped": max(row.dropped for row in rows),
        "pending": newest.pending,
        "resources": merging.resources([(row.seconds, row.resources) for row in rows]),
        "payload": payload,
        "refused": refused or (texts[-1] if texts else ""),
    }


def _payload(rows: Sequence[models.Window]) -> tuple[bytes | None, str]:
    """The sketches of all as one; none, with the reason, when they cannot be one."""
    found, problem = [], ""
    for row in rows:
        if row.payload is not None:
            try:
                found.append((row, wire.unpack(row.payload)))
            except agent_errors.ContractError as error:
                problem = f"sketches: {error}"[:1024]
    if not found:
        return None, problem
    newest = max(found, key=lambda item: item[0].end_at)[1]
    try:
        features = tuple(
            merging.merge(records)
            for records in merging.by_feature(window.features for _, window in found).values()
        )
        packed = wire.pack(
            TelemetryWindow(
                boot="merged",
                seq=0,
                start=min(row.start_at for row, _ in found),
                end=max(row.end_at for row, _ in found),
                digest=newest.digest,
                model=newest.model,
                version=newest.version,
                baseline=newest.baseline,
                is_learned=newest.is_learned,
                observed=min(sum(window.observed for _, window in found), 2**53),
                features=features,
            )
        )
        wire.unpack(packed)
    except (ValueError, agent_errors.ContractError) as error:
        return None, f"merging: {error}"[:1024]
    return packed, problem
