"""Routes for drift: verdicts, reports, and from when on something counts."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from mlflow.exceptions import MlflowException
from sqlalchemy import and_, or_, select

from edgeflow_agent import typed
from edgeflow_agent.drift.verdict import Verdict
from edgeflow_mlflow import errors
from edgeflow_mlflow.api import records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.api.targets import page_number
from edgeflow_mlflow.api.telemetry import check_model
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import drift, timeline
from edgeflow_mlflow.services import reports, thresholds
from edgeflow_mlflow.services.watched import Whose

_Drift = models.Drift


def listing(call: Call) -> records.DriftList:
    """The newest verdicts, alarms first."""
    query: records.DriftQuery = call.query
    check_model(call, query.model)
    wanted = select(_Drift)
    named = [
        and_(_Drift.scope == scope, _Drift.scope_id == name)
        for scope, name in (("target", query.target), ("fleet", query.fleet))
        if name
    ]
    if named:
        wanted = wanted.where(or_(*named))
    for column, value in (
        (_Drift.scope, query.scope),
        (_Drift.model_name, query.model),
        (_Drift.model_version, query.version),
        (_Drift.status, query.status),
    ):
        if value:
            wanted = wanted.where(column == value)
    if query.alarms:
        wanted = wanted.where(_Drift.alarm.is_(True))
    skipped = page_number(query.page_token or "0")
    wanted = wanted.order_by(
        _Drift.alarm.desc(),
        _Drift.updated_at.desc(),
        _Drift.scope,
        _Drift.scope_id,
        _Drift.digest,
        _Drift.baseline_sha256,
        _Drift.feature,
    )
    with call.state.database.read() as session:
        rows = session.scalars(wanted.offset(skipped).limit(query.limit + 1)).all()
    kept, following = views.cut(rows, query.limit, lambda _: str(skipped + query.limit))
    seen = {name: call.sees_model(name) for name in {row.model_name for row in kept}}
    return records.DriftList(
        verdicts=[_view(row) for row in kept if seen[row.model_name]], next_page_token=following
    )


def _view(row: models.Drift) -> records.DriftView:
    return records.DriftView(
        scope=row.scope,
        name=row.scope_id,
        model=row.model_name,
        version=row.model_version,
        digest=row.digest,
        baseline=row.baseline_sha256,
        feature=row.feature,
        kind=row.kind,
        status=row.status,
        significant=row.significant,
        alarm=row.alarm,
        evaluations=row.evaluations,
        p_value=row.p_value,
        n=row.n,
        signals=[typed.convert(records.SignalView, item) for item in row.signals],
        history=[typed.convert(records.Evaluation, item) for item in row.history],
        start=row.from_at,
        end=row.to_at,
        updated_at=row.updated_at,
    )


def report(call: Call) -> records.DriftReport:
    """Every statistic of every feature over any time."""
    query: records.ReportQuery = call.query
    start, end = timeline.between(query.start, query.end, call.state.now())
    whose = Whose(target=query.target, fleet=query.fleet, model=query.model, version=query.version)
    check_model(call, query.model)
    with call.state.database.read() as session:
        subject = reports.subject(session, whose, start, end)
    check_model(call, subject.model)
    made = reports.report(call.state, whose, subject, start, end)
    return records.DriftReport(
        start=start,
        end=end,
        model=made.model,
        version=made.version,
        digest=made.digest,
        baseline=made.baseline,
        is_learned=made.is_learned,
        targets=made.targets,
        windows=made.windows,
        used=made.used,
        refused=made.refused,
        features=[_feature(item) for item in made.features],
    )


def _feature(item: reports.FeatureReport) -> records.FeatureReport:
    shown = item.histogram
    return records.FeatureReport(
        feature=item.name,
        kind=item.kind,
        n=item.n,
        missing=item.missing,
        status=item.verdict.status.value,
        p_value=item.verdict.p_value,
        signals=_signals(item.verdict),
        statistics={
            name.value: records.MeasureView(
                value=found.value if math.isfinite(found.value) else None, approx=found.approx
            )
            for name, found in item.measures.items()
        },
        histogram=records.HistogramView(
            edges=list(shown.edges),
            labels=list(shown.labels),
            baseline=list(shown.baseline),
            live=list(shown.live),
        ),
    )


def _signals(verdict: Verdict) -> list[records.SignalView]:
    return [typed.convert(records.SignalView, item) for item in drift.signals(verdict)]


def show_thresholds(call: Call) -> records.ThresholdsView:
    """What a model version is judged by."""
    name, version = _version(call)
    with call.state.database.read() as session:
        changes = thresholds.settings(session, name, version)
    used = drift.thresholds(changes)
    return records.ThresholdsView(
        limits={statistic.value: limit for statistic, limit in used.limits.items()},
        min_samples=used.min_samples,
        min_reference=used.min_reference,
        chance=used.chance,
        is_usual=not changes,
    )


def put_thresholds(call: Call) -> records.ThresholdsView:
    """Judge a model version by these from now on."""
    name, version = _version(call)
    given: dict[str, Any] = msgspec.to_builtins(call.body)
    changes = {key: value for key, value in given.items() if value != {}}
    thresholds.put(call.state, name, version, changes, actor=call.actor.name)
    return show_thresholds(call)


def _version(call: Call) -> tuple[str, str]:
    name, version = call.path["name"], call.path["version"]
    check_model(call, name)
    if not version.isascii() or not version.isdigit():
        raise errors.NotFoundError(f"no version {version!r} of {name!r}: versions are numbers")
    try:
        call.catalog.registry().get_model_version(name, version)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise errors.NotFoundError(f"no version {version!r} of model {name!r}") from error
        raise errors.InvalidError(error.message) from error
    return name, version


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/drift",
        policy=Policy.READ,
        handler=listing,
        summary="The newest verdicts on features, alarms first",
        query=records.DriftQuery,
        answer=records.DriftList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/drift/report",
        policy=Policy.READ,
        handler=report,
        summary="Every statistic of every feature over any time",
        query=records.ReportQuery,
        answer=records.DriftReport,
        errors=(*_REFUSED, 404, 409),
    ),
    Route(
        method="GET",
        rule="/models/<name>/versions/<version>/thresholds",
        policy=Policy.READ,
        handler=show_thresholds,
        summary="From when on a model version counts as drifted",
        answer=records.ThresholdsView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="PUT",
        rule="/models/<name>/versions/<version>/thresholds",
        policy=Policy.OPERATE,
        handler=put_thresholds,
        summary="Set from when on a model version counts as drifted",
        body=records.ThresholdsChange,
        answer=records.ThresholdsView,
        errors=(*_REFUSED, 404),
    ),
)
