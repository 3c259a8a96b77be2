"""Routes for rollouts: how they go, stop and go back; and for the log of decisions."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.api import records, rollout_views, target_views, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.api.targets import page_number
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import control, deploy, fleets, revisions


def _numbered(session: Session, call: Call) -> models.Rollout:
    deployment = deploy.get(session, call.path["name"])
    return revisions.numbered(session, deployment, page_number(call.path["number"]))


def listing(call: Call) -> records.RolloutList:
    """A deployment's rollouts, newest first."""
    query: records.PageQuery = call.query
    with call.state.database.read() as session:
        deployment = deploy.get(session, call.path["name"])
        wanted = (
            select(models.Rollout)
            .where(models.Rollout.deployment_id == deployment.id)
            .order_by(models.Rollout.number.desc())
            .limit(query.limit + 1)
        )
        if query.page_token:
            wanted = wanted.where(models.Rollout.number < page_number(query.page_token))
        kept, following = views.cut(session.scalars(wanted).all(), query.limit, lambda row: str(row.number))
        return records.RolloutList(
            rollouts=[rollout_views.progress(session, row) for row in kept], next_page_token=following
        )


def show(call: Call) -> records.RolloutProgress:
    """One rollout, wave by wave."""
    with call.state.database.read() as session:
        return rollout_views.progress(session, _numbered(session, call))


def members(call: Call) -> records.MemberList:
    """The targets of a rollout, in order of their id."""
    query: records.MemberQuery = call.query
    with call.state.database.read() as session:
        rollout = _numbered(session, call)
        wanted = (
            select(models.RolloutMember)
            .outerjoin(models.Execution, models.Execution.id == models.RolloutMember.execution_id)
            .where(
                models.RolloutMember.rollout_id == rollout.id,
                models.RolloutMember.target_id > query.page_token,
            )
            .order_by(models.RolloutMember.target_id)
            .limit(query.limit + 1)
        )
        if query.wave:
            wanted = wanted.where(models.RolloutMember.wave == query.wave)
        if query.state == rollout_views.WAITING:
            wanted = wanted.where(models.RolloutMember.execution_id.is_(None))
        elif query.state:
            wanted = wanted.where(models.Execution.state == query.state)
        kept, following = views.cut(session.scalars(wanted).all(), query.limit, lambda row: row.target_id)
        return records.MemberList(members=rollout_views.members(session, kept), next_page_token=following)


def _present(call: Call) -> records.RolloutProgress:
    with call.state.database.read() as session:
        deployment = deploy.get(session, call.path["name"])
        return rollout_views.progress(session, session.get_one(models.Rollout, deployment.rollout_id))


def pause(call: Call) -> records.RolloutProgress:
    """Give nobody else the model."""
    control.pause(call.state, call.path["name"], actor=call.actor.name, why=call.body.why)
    return _present(call)


def resume(call: Call) -> records.RolloutProgress:
    """Go on, and accept the failures so far."""
    control.resume(call.state, call.path["name"], actor=call.actor.name, why=call.body.why)
    return _present(call)


def approve(call: Call) -> records.RolloutProgress:
    """Let the next wave begin."""
    control.approve(call.state, call.path["name"], actor=call.actor.name, why=call.body.why)
    return _present(call)


def abort(call: Call) -> records.RolloutProgress:
    """End the rollout."""
    body: records.AbortRequest = call.body
    how = control.Abort(body.devices)
    control.abort(call.state, call.path["name"], how, actor=call.actor.name, why=body.why)
    return _present(call)


def roll_back(call: Call) -> records.RolloutProgress:
    """Bring an earlier model back."""
    body: records.RollbackRequest = call.body
    control.roll_back(call.state, call.path["name"], body.to, actor=call.actor.name, why=body.why)
    return _present(call)


def _target(call: Call) -> records.TargetView:
    with call.state.database.read() as session:
        row = session.get(models.Target, call.path["target_id"])
        if row is None:
            raise fleets.unknown_target(session, call.path["target_id"])
        return target_views.one(call.state, session, row)


def hold(call: Call) -> records.TargetView:
    """Leave a target out of rollouts."""
    control.hold(call.state, call.path["target_id"], actor=call.actor.name, why=call.body.why)
    return _target(call)


def release(call: Call) -> records.TargetView:
    """Let it take part again."""
    control.release(call.state, call.path["target_id"], actor=call.actor.name, why=call.body.why)
    return _target(call)


def explain(call: Call) -> records.Explanation:
    """Why a target has the model that it has."""
    with call.state.database.read() as session:
        row = session.get(models.Target, call.path["target_id"])
        if row is None:
            raise fleets.unknown_target(session, call.path["target_id"])
        return rollout_views.explanation(call.state, session, row)


def decisions(call: Call) -> records.AuditList:
    """Who did what, when and why, newest first."""
    query: records.AuditQuery = call.query
    with call.state.database.read() as session:
        wanted = select(models.Audit).order_by(models.Audit.id.desc()).limit(query.limit + 1)
        if query.page_token:
            wanted = wanted.where(models.Audit.id < page_number(query.page_token))
        if query.subject:
            wanted = wanted.where(models.Audit.subject == query.subject)
        if query.target:
            wanted = wanted.where(models.Audit.target_id == query.target)
        kept, following = views.cut(session.scalars(wanted).all(), query.limit, lambda row: str(row.id))
        return records.AuditList(
            entries=[rollout_views.audit(row) for row in kept], next_page_token=following
        )


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/deployments/<name>/rollouts",
        policy=Policy.READ,
        handler=listing,
        summary="A deployment's rollouts, newest first",
        query=records.PageQuery,
        answer=records.RolloutList,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/deployments/<name>/rollouts/<number>",
        policy=Policy.READ,
        handler=show,
        summary="A rollout, wave by wave",
        answer=records.RolloutProgress,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/deployments/<name>/rollouts/<number>/targets",
        policy=Policy.READ,
        handler=members,
        summary="The targets of a rollout and how each stands",
        query=records.MemberQuery,
        answer=records.MemberList,
        errors=(*_REFUSED, 404),
    ),
    *(
        Route(
            method="POST",
            rule=f"/deployments/<name>/{word}",
            policy=Policy.OPERATE,
            handler=handler,
            summary=summary,
            body=body,
            answer=records.RolloutProgress,
            errors=(*_REFUSED, 404, 409),
        )
        for word, handler, summary, body in (
            ("pause", pause, "Give nobody else the model", records.Decide),
            ("resume", resume, "Go on, and accept the failures so far", records.Decide),
            ("approve", approve, "Let the next wave begin", records.Decide),
            ("abort", abort, "End the present rollout", records.AbortRequest),
            ("rollback", roll_back, "Bring an earlier model back", records.RollbackRequest),
        )
    ),
    Route(
        method="POST",
        rule="/targets/<target_id>/hold",
        policy=Policy.OPERATE,
        handler=hold,
        summary="Leave a target out of rollouts",
        body=records.Decide,
        answer=records.TargetView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="POST",
        rule="/targets/<target_id>/release",
        policy=Policy.OPERATE,
        handler=release,
        summary="Let a held target take part again",
        body=records.Decide,
        answer=records.TargetView,
        errors=(*_REFUSED, 404, 409),
    ),
    Route(
        method="GET",
        rule="/targets/<target_id>/explain",
        policy=Policy.READ,
        handler=explain,
        summary="Why a target has the model that it has",
        answer=records.Explanation,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/audit",
        policy=Policy.READ,
        handler=decisions,
        summary="Who did what, when and why, newest first",
        query=records.AuditQuery,
        answer=records.AuditList,
        errors=_REFUSED,
    ),
)
