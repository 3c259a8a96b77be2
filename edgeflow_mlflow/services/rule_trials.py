"""Try a rule on the telemetry of the last day, before anybody is told of anything."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_agent.wire.telemetry import LATENCY_BUCKETS
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import alert_kinds, replay
from edgeflow_mlflow.domain.alert_facts import Facts, Load
from edgeflow_mlflow.domain.alert_rules import Rule
from edgeflow_mlflow.domain.replay import Outcome
from edgeflow_mlflow.services import alert_facts
from edgeflow_mlflow.services.state import State

_DAY = timedelta(days=1)
# So much is read, and so often is looked at one object, that the answer comes while somebody types.
_MOST_WINDOWS = 60_000
_MOST_LOADS = 60_000
_LOOKS = (48, 1440)
# Columns of a window without its latencies.
_PLAIN = 8
_OF_LOADS = (
    alert_kinds.ErrorRateParameters,
    alert_kinds.LatencyParameters,
    alert_kinds.ThroughputParameters,
    alert_kinds.QueueParameters,
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of it, and over which time; no outcome when the past does not tell."""

    since: datetime
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True)
class _Series:
    """The windows of one device and model version: when they ended, and their counts up to each."""

    key: tuple[str, str, str, str]
    ends: list[datetime]
    sums: Any

    def load(self, since: datetime, until: datetime) -> Load | None:
        """What ended within that time, summed."""
        first, last = bisect.bisect_right(self.ends, since), bisect.bisect_right(self.ends, until)
        if first == last:
            return None
        counts = self.sums[last] - self.sums[first]
        target, deployment, model, version = self.key
        return Load(
            target=target,
            deployment=deployment,
            model=model,
            version=version,
            requests=float(counts[0]),
            failed=float(counts[1]),
            rejected=float(counts[2]),
            latency=tuple(float(count) for count in counts[3:]),
        )


def attempt(state: State, session: Session, rule: Rule) -> Trial:
    """How often the rule would have fired within the last day. Only rules over requests can be told: what
    they look at is kept."""
    now = state.now()
    parameters = rule.parameters
    if not isinstance(parameters, _OF_LOADS):
        return Trial(since=now - _DAY)
    minutes = timedelta(minutes=parameters.minutes)
    rows = _windows(session, now - _DAY - minutes, now, latency=rule.kind == "latency")
    since = now - _DAY
    if len(rows) == _MOST_WINDOWS:
        since = min(now, max(since, rows[0].end_at + minutes))
    series = _series(session, rows)
    fewest, most = _LOOKS
    every = (now - since) / min(most, max(fewest, _MOST_LOADS // max(1, len(series))))
    if not series or not every:
        return Trial(since=since, outcome=Outcome())
    facts = alert_facts.gather(state, session, [rule])
    looks = _looks(facts, series, parameters.minutes, since, every)
    return Trial(since=since, outcome=replay.replay(rule, looks, every))


def _windows(session: Session, since: datetime, now: datetime, *, latency: bool) -> list[Any]:
    window = models.Window
    found = session.execute(
        select(
            window.target_id,
            window.deployment_id,
            window.model_name,
            window.model_version,
            window.end_at,
            window.requests,
            window.failed,
            window.outcomes,
            *([window.latency_counts] if latency else []),
        )
        .where(window.span == "raw", window.end_at > since, window.end_at <= now)
        .order_by(window.end_at.desc())
        .limit(_MOST_WINDOWS)
    ).all()
    return list(reversed(found))


def _series(session: Session, rows: Sequence[Any]) -> list[_Series]:
    names: dict[str, str] = {
        row.id: row.name for row in session.execute(select(models.Deployment.id, models.Deployment.name))
    }
    groups: dict[tuple[str, str, str, str], list[Any]] = {}
    for row in rows:
        key = (row.target_id, names.get(row.deployment_id, ""), row.model_name, row.model_version)
        groups.setdefault(key, []).append(row)
    return [
        _Series(
            key=key,
            ends=[row.end_at for row in found],
            sums=np.cumsum([np.zeros_like(_counts(found[0])), *map(_counts, found)], axis=0),
        )
        for key, found in groups.items()
    ]


def _counts(row: Any) -> Any:
    rejected = row.outcomes.get("rejected", 0)
    if len(row) == _PLAIN:
        return np.array([row.requests, row.failed, rejected], dtype=float)
    # Of a window without answers there are no counts.
    latency = row.latency_counts or [0] * (len(LATENCY_BUCKETS) + 1)
    return np.array([row.requests, row.failed, rejected, *latency], dtype=float)


def _looks(
    facts: Facts, series: Sequence[_Series], minutes: int, since: datetime, every: timedelta
) -> Iterator[Facts]:
    at = since + every
    while at <= facts.now:
        loads = [item.load(at - timedelta(minutes=minutes), at) for item in series]
        yield dataclasses.replace(
            facts, now=at, loads={minutes: [load for load in loads if load is not None]}
        )
        at += every
