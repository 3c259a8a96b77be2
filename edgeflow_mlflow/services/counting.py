"""How a rollout stands, counted by the database: the snapshot that the planner decides from.

A handful of aggregates over the members of the waves so far, whatever the size of the fleet.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, and_, case, distinct, func, or_, select
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.elements import ColumnElement

from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import drift, retries, rollouts
from edgeflow_mlflow.domain.gates import Facts
from edgeflow_mlflow.domain.rollouts import OnFailure, Snapshot, Wave, WaveState
from edgeflow_mlflow.services import revisions, strategy

_Member, _Execution, _Target, _Drift = models.RolloutMember, models.Execution, models.Target, models.Drift
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_UNTAKEN = (Step.PENDING.value, Step.OFFERED.value)
# What a target has not been reached with in time says nothing of the model; silence in the middle does.
UNREACHED = "unreached"
_FAILED: ColumnElement[bool] = or_(
    _Execution.state.in_([Step.FAILED.value, Step.REJECTED.value, Step.ROLLED_BACK.value]),
    and_(_Execution.state == Step.TIMED_OUT.value, _Execution.reason != UNREACHED),
)
WAITING: ColumnElement[bool] = and_(_Member.assigned_at.is_(None), _Target.held_at.is_(None))


def members(rollout: models.Rollout) -> Select[Any]:
    """The ids of the members of the waves so far, joined with their newest executions."""
    return (
        select(_Member.target_id)
        .join(_Target, _Target.id == _Member.target_id)
        .outerjoin(_Execution, _Execution.id == _Member.execution_id)
        .where(_Member.rollout_id == rollout.id, _Member.wave <= rollout.wave)
    )


def _again(rollout: models.Rollout) -> ColumnElement[bool]:
    """Who failed in a way after which they may try again."""
    allowed = strategy.retry(rollout.settings.get(strategy.GROUP, {}))
    return and_(
        _FAILED,
        _Target.held_at.is_(None),
        or_(
            *(
                and_(_Execution.reason.in_(retries.CLASSES[name]), _Member.attempts <= times)
                for name, times in allowed.items()
            )
        ),
    )


def due_again(rollout: models.Rollout, now: datetime) -> ColumnElement[bool]:
    """Those of them who have waited long enough for it."""
    most = max(strategy.retry(rollout.settings.get(strategy.GROUP, {})).values())
    waited = [
        and_(_Member.attempts == attempts, _Execution.finished_at <= now - retries.wait(attempts))
        for attempts in range(1, most + 1)
    ]
    return and_(_again(rollout), or_(*waited)) if waited else _Member.target_id.is_(None)


def snapshot(session: Session, rollout: models.Rollout, now: datetime, *, evaluations: int = 3) -> Snapshot:
    """What there is to decide from. Drift was judged when there were so many `evaluations`."""
    settings = rollout.settings.get(strategy.GROUP, {})
    plan = strategy.plan(settings)
    wave = session.get_one(models.RolloutWave, (rollout.id, rollout.wave))
    last = session.scalar(
        select(func.max(models.RolloutWave.number)).where(models.RolloutWave.rollout_id == rollout.id)
    )
    since = max((moment for moment in (wave.started_at, rollout.resumed_at) if moment), default=now)
    opened = plan.window.opened(now) if plan.window is not None else None
    clock_from = max(since, opened) if opened is not None else since
    again = _again(rollout)
    is_open = or_(
        and_(
            _Member.assigned_at.is_not(None),
            _Execution.finished_at.is_(None),
            or_(
                _Execution.state.not_in(_UNTAKEN),
                _Member.assigned_at > now - strategy.offline_wait(settings),
            ),
        ),
        and_(again, ~due_again(rollout, now)),
    )
    ended = and_(_Execution.finished_at >= (wave.started_at or now), ~again)
    accepted = and_(ended, _Execution.finished_at <= (rollout.resumed_at or _LONG_AGO))
    ended = and_(ended, _Execution.finished_at > (rollout.resumed_at or _LONG_AGO))
    failed = and_(ended, _FAILED)
    executed = and_(ended, or_(_FAILED, _Execution.state == Step.DEPLOYED.value))
    compared = and_(ended, _Execution.trial_mean_s.is_not(None), _Execution.usual_mean_s > 0)
    row = session.execute(
        members(rollout).with_only_columns(
            _sum(WAITING),
            _sum(is_open),
            _sum(due_again(rollout, now)),
            _sum(_Member.assigned_at >= clock_from),
            _sum(and_(_Member.wave == rollout.wave, _Target.held_at.is_(None))),
            _sum(accepted),
            _sum(executed),
            _sum(failed),
            _sum(ended, _Execution.trial_requests),
            _sum(ended, _Execution.trial_errors),
            _sum(compared, _Execution.trial_requests * _Execution.trial_mean_s),
            _sum(compared, _Execution.trial_requests * _Execution.usual_mean_s),
            maintain_column_froms=True,
        )
    ).one()
    # PostgreSQL sums whole numbers as decimals.
    waiting, open_, due, begun, targets, accepted_, executed_, failed_, requests, errors_ = (
        int(value or 0) for value in row[:-2]
    )
    ours, usual = (float(value or 0) for value in row[-2:])
    facts = Facts(
        targets=targets,
        accepted=accepted_,
        executed=executed_,
        failed=failed_,
        trial_requests=requests,
        trial_errors=errors_,
        latency_ratio=ours / usual if usual else None,
        is_over=not (waiting or open_ or due),
    )
    if plan.limits.max_drift_rate is not None:
        facts = _with_drift(session, rollout, facts, ended, now, evaluations)
    return Snapshot(
        state=rollouts.State(rollout.state),
        plan=plan,
        seed=rollout.id,
        clock_from=clock_from,
        can_return=plan.on_failure is OnFailure.ROLLBACK and revisions.earlier(session, rollout) is not None,
        wave=Wave(
            number=wave.number,
            state=WaveState(wave.state),
            is_last=wave.number == last,
            waiting=waiting,
            open=open_,
            retries=due,
            begun=begun,
            started_at=wave.started_at,
            soak_until=wave.soak_until,
            approved=wave.approved_at is not None,
            facts=facts,
        ),
    )


def _with_drift(
    session: Session,
    rollout: models.Rollout,
    facts: Facts,
    ended: ColumnElement[bool],
    now: datetime,
    evaluations: int,
) -> Facts:
    """What is known of the drift of those that serve the new model since the wave began."""
    settings = rollout.settings.get(strategy.GROUP, {})
    serving = members(rollout).where(ended, _Execution.state == Step.DEPLOYED.value)
    watched, latest = session.execute(
        serving.with_only_columns(func.count(), func.max(_Execution.finished_at), maintain_column_froms=True)
    ).one()
    digest = select(models.Bundle.digest).where(models.Bundle.id == rollout.bundle_id).scalar_subquery()
    verdicts = and_(
        _Drift.scope == "target",
        _Drift.scope_id == _Member.target_id,
        _Drift.digest == digest,
        _Drift.kind.in_(strategy.drift_kinds(settings)),
        _Drift.updated_at > _Execution.finished_at,
    )
    # What had drifted under the version before as well is not the new version's doing.
    before = aliased(_Drift)
    is_old = (
        select(before.feature)
        .where(
            before.scope == "target",
            before.scope_id == _Drift.scope_id,
            before.digest != _Drift.digest,
            before.feature == _Drift.feature,
            before.alarm_at > now - drift.FRESH,
        )
        .exists()
    )
    known = or_(_Drift.evaluations >= evaluations, _Drift.alarm.is_(True))
    judged, drifted = session.execute(
        serving.join(_Drift, verdicts).with_only_columns(
            func.count(distinct(case((known, _Drift.scope_id)))),
            func.count(distinct(case((and_(_Drift.alarm.is_(True), ~is_old), _Drift.scope_id)))),
            maintain_column_froms=True,
        )
    ).one()
    waited = latest is None or now >= latest + strategy.drift_wait(settings)
    return dataclasses.replace(
        facts, watched=watched, judged=judged, drifted=drifted, is_judged=facts.is_over and waited
    )


def _sum(condition: ColumnElement[bool], value: Any = 1) -> Any:
    return func.sum(case((condition, value), else_=0))
