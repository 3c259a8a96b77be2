"""Keep verdicts: the newest of each feature, its history, and whether it is an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.drift.verdict import Status
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import inserting
from edgeflow_mlflow.domain import drift
from edgeflow_mlflow.domain.drift import Persistence, Said
from edgeflow_mlflow.services.state import State

# Rows in one transaction, so that nobody waits long for the lock.
_SLICE = 2000
_FORGOTTEN = timedelta(days=30)
_TOO_FEW = Status.INSUFFICIENT_DATA.value
_KEY = ("scope", "scope_id", "digest", "baseline_sha256", "feature")

_Drift = models.Drift
_Table: Any = models.Drift.__table__


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One evaluation: the verdict on each feature."""

    start: datetime
    end: datetime
    verdicts: dict[str, Said]


@dataclass(kw_only=True)
class Judged:
    """The evaluations of one target, fleet or model, the latest last, and the windows that they are of."""

    scope_id: str
    deployment: str = ""
    digest: str
    baseline: Baseline
    moments: list[Moment] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)


def persistence(state: State) -> Persistence:
    """How many evaluations must agree."""
    return Persistence.of(state.config["drift.k"], state.config["drift.n"])


def keep(state: State, scope: str, version: tuple[str, str], judged: Sequence[Judged]) -> None:
    """Store evaluations of one model version. What is significant is decided among all that are fresh of
    this scope and version, those of other targets too."""
    if not judged:
        return
    with state.database.read() as session:
        before, p_values = _before(session, state.now(), scope, version, judged)
    p_values += [
        said.p_value
        for item in judged
        for moment in item.moments
        for said in moment.verdicts.values()
        if said.p_value is not None
    ]
    limit = drift.outstanding(p_values)
    part: list[Judged] = []
    rows: list[dict[str, Any]] = []
    for item in judged:
        part.append(item)
        rows += _rows(state, scope, version, item, before, limit)
        if len(rows) >= _SLICE:
            _write(state, part, rows)
            part, rows = [], []
    _write(state, part, rows)


def _before(
    session: Session,
    now: datetime,
    scope: str,
    version: tuple[str, str],
    judged: Sequence[Judged],
) -> tuple[dict[tuple[str, ...], tuple[list[Any], int]], list[float]]:
    """History and number of evaluations of what was judged; and the p-values of what was not."""
    where = (_Drift.scope == scope, _Drift.model_name == version[0], _Drift.model_version == version[1])
    mine = {(item.scope_id, item.digest, item.baseline.digest) for item in judged}
    names = (_Drift.scope_id, _Drift.digest, _Drift.baseline_sha256)
    fresh = session.execute(
        select(*names, _Drift.p_value).where(
            *where, _Drift.updated_at >= now - drift.FRESH, _Drift.p_value.is_not(None)
        )
    )
    p_values = [
        p_value
        for scope_id, digest, baseline, p_value in fresh
        if p_value is not None and (scope_id, digest, baseline) not in mine
    ]
    before: dict[tuple[str, ...], tuple[list[Any], int]] = {}
    ids = sorted({item.scope_id for item in judged})
    for at in range(0, len(ids), 500):
        rows = session.execute(
            select(*names, _Drift.feature, _Drift.history, _Drift.evaluations).where(
                _Drift.scope == scope, _Drift.scope_id.in_(ids[at : at + 500])
            )
        )
        for scope_id, digest, baseline, feature, history, evaluations in rows:
            before[scope_id, digest, baseline, feature] = (history, evaluations)
    return before, p_values


def _rows(
    state: State,
    scope: str,
    version: tuple[str, str],
    item: Judged,
    before: dict[tuple[str, ...], tuple[list[Any], int]],
    limit: float,
) -> list[dict[str, Any]]:
    rule, now = persistence(state), state.now()
    inputs = {feature.name for feature in item.baseline.inputs}
    rows = []
    for feature in dict.fromkeys(name for moment in item.moments for name in moment.verdicts):
        history, evaluations = before.get(
            (item.scope_id, item.digest, item.baseline.digest, feature), ([], 0)
        )
        seen = [(moment, moment.verdicts[feature]) for moment in item.moments if feature in moment.verdicts]
        added = [drift.entry(said, moment.end, limit) for moment, said in seen]
        history = [*history, *added][-drift.HISTORY :]
        moment, said = seen[-1]
        alarm = drift.alarmed(history, rule)
        rows.append(
            {
                "scope": scope,
                "scope_id": item.scope_id,
                "digest": item.digest,
                "baseline_sha256": item.baseline.digest,
                "feature": feature,
                "kind": "input" if feature in inputs else "output",
                "model_name": version[0],
                "model_version": version[1],
                "deployment_id": item.deployment,
                "status": said.status,
                "significant": added[-1]["significant"],
                "evaluations": evaluations + sum(entry["status"] != _TOO_FEW for entry in added),
                "alarm": alarm,
                "alarm_at": now if alarm else None,
                "p_value": said.p_value,
                "n": said.n,
                "signals": said.signals,
                "history": history,
                "from_at": moment.start,
                "to_at": moment.end,
                "updated_at": now,
                "window_id": max(item.windows, default=0),
            }
        )
    return rows


def _write(state: State, judged: Sequence[Judged], rows: Sequence[dict[str, Any]]) -> None:
    windows = [identifier for item in judged for identifier in item.windows]
    if not rows and not windows:
        return
    with state.database.write() as session:
        adding = inserting(session, _Table)
        changed = {
            column.name: adding.excluded[column.name] for column in _Table.c if column.name not in _KEY
        }
        if rows:
            session.connection().execute(
                adding.on_conflict_do_update(index_elements=_KEY, set_=changed), rows
            )
        for at in range(0, len(windows), 500):
            session.execute(
                delete(models.UnjudgedWindow).where(
                    models.UnjudgedWindow.window_id.in_(windows[at : at + 500])
                )
            )


def end_alarms(state: State) -> None:
    """A verdict on a model that a device no longer serves, or on what is long past, is no alarm."""
    serves = select(models.Target.actual_digest).where(models.Target.id == _Drift.scope_id).scalar_subquery()
    over = or_(
        (_Drift.scope == "target") & ((serves != _Drift.digest) | serves.is_(None)),
        _Drift.updated_at < state.now() - drift.FRESH,
    )
    ended = select(_Drift.scope_id).where(_Drift.alarm.is_(True), over).limit(1)
    with state.database.read() as session:
        if session.scalars(ended).first() is None:
            return
    with state.database.write() as session:
        session.execute(
            update(_Drift)
            .where(_Drift.alarm.is_(True), over)
            .values(alarm=False)
            .execution_options(synchronize_session=False)
        )


def forget_old(state: State) -> None:
    """Verdicts on what nobody has used for a month."""
    with state.database.write() as session:
        session.execute(delete(_Drift).where(_Drift.updated_at < state.now() - _FORGOTTEN))
