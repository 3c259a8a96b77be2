"""Drift of many devices taken together: a change too small to be seen on one of them is found in all."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeflow_agent.drift.baseline import Baseline
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import selectors
from edgeflow_mlflow.services import baselines, drift, drift_rows, judging, thresholds
from edgeflow_mlflow.services.drift_rows import Judged, Moment
from edgeflow_mlflow.services.judging import Together
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
            usual = thresholds.of(session, pool.model, pool.version)
            devices = {} if baseline is None else _devices(session, pool, since, baseline)
        if baseline is None or not devices:
            continue
        scopes = {(MODEL, ""): set(devices)}
        scopes |= {(FLEET, name): members & devices.keys() for name, members in fleets.items()}
        for (scope, scope_id), members in scopes.items():
            # Of one device there is a verdict already.
            if len(members) < 2:
                continue
            together = [devices[name] for name in sorted(members)]
            moment = Moment(
                start=min(window.start for device in together for window in device.windows),
                end=max(window.end for device in together for window in device.windows),
                verdicts=drift.verdicts(judging.pooled(together), usual),
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


def _devices(session: Session, pool: Pool, since: datetime, baseline: Baseline) -> dict[str, Together]:
    stride = -(-pool.windows // MOST_WINDOWS)
    rows = session.execute(
        judging.columns()
        .where(
            _Window.span == "raw",
            _Window.received_at >= since,
            _Window.model_name == pool.model,
            _Window.model_version == pool.version,
            _Window.digest == pool.digest,
            _Window.baseline_sha256 == pool.baseline,
            _Window.payload.is_not(None),
            _Window.id % stride == 0,
        )
        .order_by(_Window.target_id)
    )
    found: dict[str, Together] = {}
    for target, mine in itertools.groupby(rows, key=lambda row: str(row[1])):
        device = judging.together(baseline, judging.stored(mine))
        if device.windows:
            found[target] = device
    return found


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
