"""Carry out what the planner decides about a rollout: each step is noted and done in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import rollouts
from edgeflow_mlflow.domain.rollouts import (
    Assign,
    Decision,
    Event,
    Halt,
    PassWave,
    Retry,
    RollBack,
    Soak,
    StartWave,
    WaveState,
)
from edgeflow_mlflow.services import audit, counting, desired, revisions
from edgeflow_mlflow.services.lineage import recalled
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

# Enough for any number of targets in batches; a planner that goes round in circles ends here.
_MOST_STEPS = 1000


def advance_all(state: State) -> None:
    """One look at every rollout that is under way; what can be done for it is done."""
    with state.database.read() as session:
        ids = session.scalars(
            select(models.Rollout.id).where(models.Rollout.state == rollouts.State.RUNNING.value)
        ).all()
    for rollout_id in ids:
        # Most looks find nothing to do, and need no lock to find that.
        with state.database.read() as session:
            rollout = session.get_one(models.Rollout, rollout_id)
            decision = _decide(state, session, rollout)
            is_news = decision.why != rollout.why or _told(decision) != _wave(session, rollout).readings
        if decision.action is None and not is_news:
            continue
        with state.database.write() as session:
            found = session.get(models.Rollout, rollout_id)
            if found is None:
                continue
            # In the order in which requests lock: the deployment, then what belongs to it.
            session.get_one(models.Deployment, found.deployment_id, with_for_update=desired.LOCK)
            session.refresh(found, with_for_update=desired.LOCK)
            advance(state, session, found, most=4)


def advance(
    state: State, session: Session, rollout: models.Rollout, *, most: int = _MOST_STEPS
) -> models.Rollout:
    """Take the steps that can be taken now. The caller has locked the deployment. The rollout that is then
    the deployment's: another one when a gate has brought an earlier version back."""
    _stop_recalled(state, session, rollout)
    for _ in range(most):
        session.flush()
        decision = _decide(state, session, rollout)
        wave = _wave(session, rollout)
        if rollouts.State(rollout.state) is rollouts.State.RUNNING:
            rollout.why = decision.why
            if decision.readings:
                wave.readings = _told(decision)
        if decision.action is None:
            break
        rollout = _apply(state, session, rollout, wave, decision)
    return rollout


def _stop_recalled(state: State, session: Session, rollout: models.Rollout) -> None:
    """Pause a rollout whose model a recall holds back: nobody else gets it."""
    if rollouts.State(rollout.state) is not rollouts.State.RUNNING:
        return
    recall = recalled.holding(session, session.get_one(models.Bundle, rollout.bundle_id))
    if recall is None:
        return
    rollout.state = rollouts.after(rollouts.State.RUNNING, Event.PAUSE).value
    rollout.why = f"recall {recall.id} holds its model back: {recall.why}"
    deployment = session.get_one(models.Deployment, rollout.deployment_id)
    audit.note(
        state,
        session,
        actor=audit.EDGEFLOW,
        action="rollout.pause",
        subject=deployment.name,
        rollout=rollout.number,
        why=rollout.why,
    )


def _decide(state: State, session: Session, rollout: models.Rollout) -> Decision:
    now = state.now()
    found = counting.snapshot(session, rollout, now, evaluations=state.config["drift.n"])
    return rollouts.decide(found, now)


def _wave(session: Session, rollout: models.Rollout) -> models.RolloutWave:
    return session.get_one(models.RolloutWave, (rollout.id, rollout.wave))


def _told(decision: Decision) -> list[dict[str, object]]:
    return [
        {
            "gate": reading.gate,
            "verdict": reading.verdict.value,
            "value": reading.value,
            "limit": reading.limit,
            "text": reading.text,
        }
        for reading in decision.readings
    ]


def _apply(
    state: State,
    session: Session,
    rollout: models.Rollout,
    wave: models.RolloutWave,
    decision: Decision,
) -> models.Rollout:
    now = state.now()
    match decision.action:
        case StartWave():
            wave.state, wave.started_at = WaveState.RUNNING.value, now
            _note(state, session, rollout, "wave.start", decision)
        case Assign(count=count):
            _give(state, session, rollout, counting.WAITING, count)
        case Retry(count=count):
            _give(state, session, rollout, counting.due_again(rollout, now), count)
        case Soak(until=until):
            wave.state, wave.soak_until = WaveState.SOAKING.value, until
        case PassWave():
            _note(state, session, rollout, "wave.pass", decision)
            wave.state, wave.finished_at = WaveState.PASSED.value, now
            following = session.get(models.RolloutWave, (rollout.id, wave.number + 1))
            if following is None:
                _end(state, session, rollout, Event.SUCCEED, decision)
            else:
                rollout.wave = following.number
        case Halt():
            wave.state = WaveState.FAILED.value
            rollout.state = rollouts.after(rollouts.State(rollout.state), Event.PAUSE).value
            _note(state, session, rollout, "rollout.halt", decision)
        case RollBack():
            wave.state, wave.finished_at = WaveState.FAILED.value, now
            _end(state, session, rollout, Event.FAIL, decision)
            return _bring_back(state, session, rollout, decision)
    return rollout


def _end(state: State, session: Session, rollout: models.Rollout, event: Event, decision: Decision) -> None:
    rollout.state = rollouts.after(rollouts.State(rollout.state), event).value
    rollout.finished_at = state.now()
    _note(state, session, rollout, f"rollout.{event.value}", decision)


def _bring_back(
    state: State, session: Session, rollout: models.Rollout, decision: Decision
) -> models.Rollout:
    to = revisions.earlier(session, rollout)
    assert to is not None  # the planner has asked
    deployment = session.get_one(models.Deployment, rollout.deployment_id)
    bound = session.scalars(
        select(models.Target.id).where(models.Target.deployment_id == deployment.id)
    ).all()
    return revisions.go_back(
        state,
        session,
        deployment,
        to,
        desired.lock(session, bound),
        reason=f"rollout {rollout.number} failed: {decision.why}",
        actor=audit.EDGEFLOW,
    )


def _give(
    state: State, session: Session, rollout: models.Rollout, who: ColumnElement[bool], count: int
) -> None:
    """Give the next of these members the model. Who belongs to another deployment by now is no member."""
    ids = session.scalars(
        counting.members(rollout)
        .where(who)
        .order_by(models.RolloutMember.wave, models.RolloutMember.position)
        .limit(count)
    ).all()
    locked = desired.lock(session, ids)
    targets = [target for target in locked if target.deployment_id == rollout.deployment_id]
    gone = set(ids) - {target.id for target in targets}
    if gone:
        revisions.leave(session, rollout.id, sorted(gone))
    assign(state, session, rollout, targets)


def assign(state: State, session: Session, rollout: models.Rollout, targets: Sequence[models.Target]) -> None:
    """Give these members, which the caller has locked, the model of the rollout; nothing while a recall holds
    that back."""
    bundle = session.get_one(models.Bundle, rollout.bundle_id)
    recalled.settle(session)
    if recalled.holding(session, bundle) is not None:
        return
    before = {target.id: target.rollout_id for target in targets}
    work = desired.Assignment(
        deployment=session.get_one(models.Deployment, rollout.deployment_id),
        rollout=rollout,
        bundle=bundle,
    )
    executions = desired.assign(state, session, targets, work)
    found = session.scalars(
        select(models.RolloutMember).where(
            models.RolloutMember.rollout_id == rollout.id, models.RolloutMember.target_id.in_(executions)
        )
    )
    for member in found:
        if member.assigned_at is None:
            member.before_id = before[member.target_id]
        member.assigned_at = state.now()
        member.execution_id = executions[member.target_id]
        member.attempts += 1


def _note(state: State, session: Session, rollout: models.Rollout, action: str, decision: Decision) -> None:
    deployment = session.get_one(models.Deployment, rollout.deployment_id)
    audit.note(
        state,
        session,
        actor=audit.EDGEFLOW,
        action=action,
        subject=deployment.name,
        rollout=rollout.number,
        why=decision.why,
        detail={"wave": rollout.wave, "readings": _told(decision)},
    )
    logger.info("%s rollout %d: %s", deployment.name, rollout.number, decision.why, extra={"action": action})
