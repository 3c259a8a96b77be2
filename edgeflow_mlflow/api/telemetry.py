"""Routes for telemetry, as people see it."""

from __future__ import annotations

from sqlalchemy import select

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.api.targets import page_number
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import timeline
from edgeflow_mlflow.domain.timeline import Point
from edgeflow_mlflow.services import timeline as stored
from edgeflow_mlflow.services.watched import Whose


def series(call: Call) -> records.TelemetryView:
    """What devices have counted, over time."""
    query: records.TelemetryQuery = call.query
    check_model(call, query.model)
    start, end = timeline.between(query.start, query.end, call.state.now())
    over = timeline.steps(start, end, query.step)
    whose = Whose(
        target=query.target,
        fleet=query.fleet,
        deployment=query.deployment,
        model=query.model,
        version=query.version,
    )
    with call.state.database.read() as session:
        points = stored.points(session, whose, over)
    return records.TelemetryView(
        start=start, end=end, step_s=over.step_s, points=[_point(item, over.step_s) for item in points]
    )


def check_model(call: Call, name: str) -> None:
    """Raise ForbiddenError when the caller may not see a model."""
    if name and not call.sees_model(name):
        raise errors.ForbiddenError(f"you may not read model {name!r}")


def _point(item: Point, step_s: int) -> records.TelemetryPoint:
    answered = sum(item.latency_counts)
    return records.TelemetryPoint(
        at=item.at,
        windows=item.windows,
        targets=item.targets,
        requests=item.requests,
        failed=item.failed,
        error_rate=timeline.ratio(item.failed, item.requests),
        throughput=item.requests / step_s,
        latency_mean_s=timeline.ratio(item.latency_sum_s, answered),
        latency_p50_s=timeline.quantile(item.latency_counts, 0.5),
        latency_p95_s=timeline.quantile(item.latency_counts, 0.95),
        latency_p99_s=timeline.quantile(item.latency_counts, 0.99),
        outcomes=item.outcomes,
        observed=item.observed,
        unobserved=item.unobserved,
        swaps=item.swaps,
        dropped=item.dropped,
        resources=item.resources,
    )


def refusals(call: Call) -> records.RefusalList:
    """What devices have sent that was refused, the newest first."""
    query: records.RefusalQuery = call.query
    row = models.RefusedTelemetry
    skipped = page_number(query.page_token or "0")
    wanted = select(row).order_by(row.last_at.desc(), row.target_id, row.reason)
    if query.target:
        wanted = wanted.where(row.target_id == query.target)
    with call.state.database.read() as session:
        rows = session.scalars(wanted.offset(skipped).limit(query.limit + 1)).all()
    kept, following = views.cut(rows, query.limit, lambda _: str(skipped + query.limit))
    return records.RefusalList(
        refusals=[
            records.RefusalView(
                target=item.target_id,
                reason=item.reason,
                count=item.count,
                text=item.text,
                first_at=item.first_at,
                last_at=item.last_at,
            )
            for item in kept
        ],
        next_page_token=following,
    )


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/telemetry",
        policy=Policy.READ,
        handler=series,
        summary="What devices have counted, over time",
        query=records.TelemetryQuery,
        answer=records.TelemetryView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/telemetry/refused",
        policy=Policy.READ,
        handler=refusals,
        summary="What devices have sent that was refused, by reason",
        query=records.RefusalQuery,
        answer=records.RefusalList,
        errors=_REFUSED,
    ),
)
