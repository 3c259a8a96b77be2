"""Drift of many devices taken together: a change too small to be seen on one of them is found in all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from edgeflow_agent.drift import verdict
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import drift, selectors
from edgeflow_mlflow.services import baselines, drift_rows, judging, thresholds
from edgeflow_mlflow.services.drift_rows import Judged, Moment
from edgeflow_mlflow.services.state import State

MODEL, FLEET = "model", "fleet"
# More windows than this say nothing new. They are taken evenly from all devices and moments.
MOST_WINDOWS = 2000

_Window = models.Window


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All windows of late with one bundle and one baseline that came with it."""

    model: str
    version: str
    digest: str
    baseline: str
    windows: int


def evaluate(state: State) -> int:
    """Judge every model version over all its devices, and over those of each fleet; how many verdicts."""
    now = state.now()
    since = now - timedelta(seconds=state.config["drift.pool_s"])
    with state.database.read() as session:
        pools = _pools(session, since)
        fleets = _fleets(session) if pools else {}
    count = 0
    for pool in pools:
        with state.database.read() as session:
            baseline = baselines.find(state, session, pool.baseline)
            if baseline is None:
                continue
            usual = thresholds.of(session, pool.model, pool.version)
            devices = set(session.scalars(_windows(select(_Window.target_id), pool, since).distinct()))
            scopes = {(MODEL, ""): devices}
            scopes |= {(FLEET, name): members & devices for name, members in fleets.items()}
            # Of one device there is a verdict already.
            scopes = {scope: members for scope, members in scopes.items() if len(members) > 1}
            rows = session.execute(_windows(judging.columns(), pool, since).order_by(_Window.target_id))
            found = judging.pooled(baseline, rows, scopes)
        for (scope, scope_id), members in scopes.items():
            windows = [found.windows[name] for name in members if name in found.windows]
            if len(windows) < 2:
                continue
            moment = Moment(
                start=min(start for mine in windows for start, _ in mine),
                end=max(end for mine in windows for _, end in mine),
                verdicts={
                    name: drift.said(verdict.assess(total, usual).verdicts()[0], int(total.n[0]))
                    for name, total in found.stacks[scope, scope_id].items()
                },
            )
            judged = Judged(scope_id=scope_id, digest=pool.digest, baseline=baseline, moments=[moment])
            drift_rows.keep(state, scope, (pool.model, pool.version), [judged])
            count += len(moment.verdicts)
    return count


def _pools(session: Session, since: datetime) -> list[Pool]:
    # A baseline that a device has learned is its own, and pools with no other.
    names = (_Window.model_name, _Window.model_version, _Window.digest, _Window.baseline_sha256)
    rows = session.execute(
        select(*names, func.count())
        .where(
            _Window.span == "raw",
            _Window.received_at >= since,
            _Window.baseline_sha256 != "",
            _Window.is_learned.is_(False),
            _Window.model_name != "",
        )
        .group_by(*names)
    )
    return [
        Pool(model=model, version=version, digest=digest, baseline=baseline, windows=windows)
        for model, version, digest, baseline, windows in rows
    ]


def _windows(what: Select[*tuple[Any, ...]], pool: Pool, since: datetime) -> Select[*tuple[Any, ...]]:
    stride = -(-pool.windows // MOST_WINDOWS)
    return what.where(
        _Window.span == "raw",
        _Window.received_at >= since,
        _Window.model_name == pool.model,
        _Window.model_version == pool.version,
        _Window.digest == pool.digest,
        _Window.baseline_sha256 == pool.baseline,
        _Window.payload.is_not(None),
        _Window.id % stride == 0,
    )


def _fleets(session: Session) -> dict[str, set[str]]:
    """The members of every fleet, from one look at all targets."""
    rows: Sequence[models.Fleet] = session.scalars(select(models.Fleet)).all()
    if not rows:
        return {}
    labels = {
        name: selectors.known(given, said)
        for name, given, said in session.execute(
            select(models.Target.id, models.Target.labels, models.Target.presence)
        )
    }
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.selector:
            wanted = selectors.parse(row.selector)
            found[row.name] = {name for name, given in labels.items() if selectors.matches(wanted, given)}
        else:
            found[row.name] = set(row.targets)
    return found
