"""Routes for a first look: the fleet counted, its targets in short, and a rollout before it begins."""

from __future__ import annotations

from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.services import fleets, overview, previews


def show(call: Call) -> records.Overview:
    """Targets counted."""
    query: records.OverviewQuery = call.query
    with call.state.database.read() as session:
        found = overview.overview(call.state, session, query.selector)
    versions = sorted(found.versions.items(), key=lambda item: (-item[1], item[0]))
    return records.Overview(
        targets=found.targets,
        flags={flag.value: count for flag, count in sorted(found.flags.items())},
        versions=[
            records.VersionCount(model=model, version=version, targets=count)
            for (model, version), count in versions
        ],
        user=call.actor.name,
        may=sorted(policy.value for policy in call.actor.may),
        at=call.state.now(),
    )


def targets(call: Call) -> records.GlanceList:
    """Targets in short, in order of their id."""
    query: records.GlanceQuery = call.query
    with call.state.database.read() as session:
        found = overview.page(
            call.state,
            session,
            selector=query.selector,
            flag=query.flag,
            model=query.model,
            version=query.version,
            after=query.page_token,
            limit=query.limit + 1,
        )
    kept, following = views.cut(found, query.limit, lambda row: row.id)
    return records.GlanceList(
        targets=[
            records.Glance(
                id=row.id,
                labels=row.labels,
                flags=[flag.value for flag in row.flags],
                model=row.model,
                version=row.version,
                deployment=row.deployment,
                step=row.step,
                reason=row.reason,
                drift_alarms=row.drift_alarms,
                last_seen_at=row.last_seen_at,
            )
            for row in kept
        ],
        next_page_token=following,
    )


def preview(call: Call) -> records.Preview:
    """Who would get it when."""
    body: records.PreviewRequest = call.body
    with call.state.database.read() as session:
        names = _names(session, body.where)
        found = previews.preview(call.state, session, names, body.waves)
    return records.Preview(
        targets=found.targets,
        online=found.online,
        held=found.held,
        elsewhere=dict(sorted(found.elsewhere.items())),
        waves=[
            records.WavePreview(
                number=number,
                targets=wave.targets,
                online=wave.online,
                is_drawn=wave.is_drawn,
                some=list(wave.some),
            )
            for number, wave in enumerate(found.waves, 1)
        ],
    )


def _names(session: Session, where: records.Place) -> list[str]:
    if sum(map(bool, (where.targets, where.fleet, where.selector))) != 1:
        raise errors.InvalidError("say where: exactly one of targets, fleet and selector")
    if where.fleet:
        return fleets.members(session, fleets.get(session, where.fleet))
    if where.selector:
        return fleets.selected(session, where.selector)
    return fleets.named(session, where.targets)


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/overview",
        policy=Policy.READ,
        handler=show,
        summary="The fleet counted: by health, and by what it serves",
        query=records.OverviewQuery,
        answer=records.Overview,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/overview/targets",
        policy=Policy.READ,
        handler=targets,
        summary="Targets in short, by health, labels or model",
        query=records.GlanceQuery,
        answer=records.GlanceList,
        errors=_REFUSED,
    ),
    Route(
        method="POST",
        rule="/overview/rollout",
        policy=Policy.READ,
        handler=preview,
        summary="Who would get a rollout in which wave; nothing begins",
        body=records.PreviewRequest,
        answer=records.Preview,
        errors=(*_REFUSED, 404),
    ),
)
