"""Routes for recalls: see what a bad data set has reached, take it back, and prove it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import lineage_views, recall_page, recall_views, records, tracing, views
from edgeflow_mlflow.api.publishing import check_seen, publish_for
from edgeflow_mlflow.api.routing import Call, Policy, Raw, Route
from edgeflow_mlflow.api.targets import page_number
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import lineage, recalls
from edgeflow_mlflow.domain.recalls import Candidate, Remedy
from edgeflow_mlflow.services import revisions
from edgeflow_mlflow.services.lineage import (
    edges,
    recall_plan,
    recall_progress,
    recalled,
    recalling,
    serving,
)
from edgeflow_mlflow.services.lineage import tracing as lineage_tracing

logger = logging.getLogger(__name__)

_MOST_EVIDENCE = 10_000


def plan(call: Call) -> records.RecallPlan:
    """What a recall would do."""
    found = _plan(call, call.body)
    with call.state.database.read() as session:
        names = recall_views.deployment_names(
            session, {item.row.deployment_id or "" for item in found.devices}
        )
    devices = [
        records.PlannedDevice(
            target=item.row.target_id,
            deployment=names.get(item.row.deployment_id or "", ""),
            model=item.model,
            version=item.version,
            bonds=[bond.value for bond in recalls.bonds(item.stand)],
            remedy=item.remedy.value,
            goes_to=item.goes_to,
            status=views.online(call.state, item.row.last_seen_at),
        )
        for item in found.devices
    ]
    return records.RecallPlan(
        datasets=[lineage_views.dataset(item) for item in found.datasets],
        versions=tracing.versions(call, found.reach, tracing.words_of(call, found.reach)),
        alternatives=[
            records.Alternative(model=name, uri=uri) for name, uri in sorted(found.alternatives.items())
        ],
        devices=devices,
        counts=dict(Counter(item.remedy for item in devices)),
    )


def _plan(call: Call, body: records.RecallPlanRequest) -> recall_plan.Plan:
    with call.state.database.read() as session:
        chosen = tracing.chosen(
            call,
            session,
            edges.children(session),
            name=body.name,
            digest=body.digest,
            content=body.content,
            dataset=body.dataset,
        )
        ids = [item.id for item in chosen]
    return _plan_for(call, ids, any_use=body.any_use, go_to=dict(body.go_to))


def _plan_for(
    call: Call, dataset_ids: Sequence[str], *, any_use: bool, go_to: dict[str, str]
) -> recall_plan.Plan:
    with call.state.database.read() as session:
        chosen = list(edges.datasets_by_id(session, dataset_ids).values())
        reach = lineage_tracing.reach(session, chosen, edges.children(session), any_use=any_use)
        concerned = recall_plan.models_concerned(session, reach)
    alternatives = {name: _alternative(call, reach, name, go_to.get(name, "")) for name in sorted(concerned)}
    with call.state.database.read() as session:
        return recall_plan.plan(session, reach, any_use=any_use, alternatives=alternatives)


def _alternative(call: Call, reach: lineage_tracing.Reach, name: str, uri: str) -> str:
    """What devices of a model go to: what was asked for, else the newest clean version."""
    if uri:
        model = call.catalog.resolve(uri)
        check_seen(call, model, uri)
        if call.catalog.node(model) in reach.found:
            raise errors.InvalidError(f"{uri} was trained on the data set too: name another version")
        return f"models:/{model.name}/{model.version}" if model.is_registered else uri
    with call.state.database.read() as session:
        deployable = set(
            session.scalars(
                select(models.Verdict.model_version).where(
                    models.Verdict.model_name == name, models.Verdict.verdict == "deployable"
                )
            )
        )
        published = {
            bundle.model_version: bundle
            for bundle in session.scalars(select(models.Bundle).where(models.Bundle.model_name == name))
        }
        held = {
            version
            for version, bundle in published.items()
            if bundle.id in reach.bundles or recalled.holding(session, bundle) is not None
        }
    quote = '"' if "'" in name else "'"  # MLflow knows no escape
    candidates = [
        Candidate(
            number=int(row.version),
            is_tainted=lineage.version(name, str(row.version)) in reach.found or str(row.version) in held,
            is_deployable=str(row.version) in published or str(row.version) in deployable,
        )
        for row in call.catalog.registry().search_model_versions(
            f"name={quote}{name}{quote}", max_results=500
        )
    ]
    newest = recalls.newest_clean(candidates)
    return "" if newest is None else f"models:/{name}/{newest}"


def create(call: Call) -> records.RecallDetail:
    """Recall a data set: hold its models back, and begin the rollouts."""
    body: records.RecallCreate = call.body
    recall = recalling.begin(call.state, _plan(call, body), why=body.why, actor=call.actor.name)
    _carry_out(call, recall, dict(body.go_to))
    return recall_views.detail(call, recall.id)


def resume(call: Call) -> records.RecallDetail:
    """Carry out what a recall has not: after a failure, or when its devices changed."""
    with call.state.database.read() as session:
        recall = recalling.get(session, call.path["recall_id"])
    if recall.lifted_at is not None:
        raise errors.ConflictError(f"recall {recall.id} was lifted; begin another one")
    _carry_out(call, recall, {name: uri for name, uri in recall.plan["alternatives"].items() if uri})
    return recall_views.detail(call, recall.id)


def _carry_out(call: Call, recall: models.Recall, go_to: dict[str, str]) -> None:
    """Each deployment by itself: one that cannot be helped does not keep the others from it. What is to be
    done is found out anew: somebody may have deployed meanwhile."""
    actor = call.actor.name
    found = _plan_for(call, recall.datasets, any_use=recall.any_use, go_to=go_to)
    recalling.adopt(call.state, recall.id, found)
    for part in recalling.parts(found):
        moving = part.by_remedy.get(Remedy.ROLL_OUT, ())
        try:
            if moving:
                bundle, _ = publish_for(call, part.goes_to)
                what = revisions.What(bundle_id=bundle.id, model_uri=part.goes_to)
                recalling.roll_out(call.state, recall, part.deployment_id, what, actor=actor)
            lagging = [*part.by_remedy.get(Remedy.CLEAR, ()), *part.by_remedy.get(Remedy.FOLLOWS, ())]
            if lagging:
                recalling.clear(call.state, part.deployment_id, lagging)
            recalling.hold(call.state, recall, part.by_remedy.get(Remedy.HOLD, ()), actor=actor)
        except errors.ServerError as error:
            logger.warning("recall %s cannot help deployment %s: %s", recall.id, part.deployment_id, error)
            recalling.failed(call.state, recall.id, moving, str(error))
        else:
            recalling.failed(call.state, recall.id, moving, "")


def listing(call: Call) -> records.RecallList:
    """Recalls, the newest first."""
    query: records.RecallQuery = call.query
    offset = page_number(query.page_token) if query.page_token else 0
    with call.state.database.read() as session:
        rows = select(models.Recall).order_by(models.Recall.created_at.desc(), models.Recall.id)
        if query.standing:
            rows = rows.where(models.Recall.lifted_at.is_(None))
        found = session.scalars(rows.offset(offset).limit(query.limit + 1)).all()
        return records.RecallList(
            recalls=[
                recall_views.view(row, recall_progress.of(call.state, session, row))
                for row in found[: query.limit]
            ],
            next_page_token=str(offset + query.limit) if len(found) > query.limit else "",
        )


def show(call: Call) -> records.RecallDetail:
    """A recall and every device of it."""
    return recall_views.detail(call, call.path["recall_id"])


def lift(call: Call) -> records.RecallDetail:
    """End a recall."""
    body: records.RecallLift = call.body or records.RecallLift()
    recalling.lift(call.state, call.path["recall_id"], actor=call.actor.name, why=body.why)
    return recall_views.detail(call, call.path["recall_id"])


def report(call: Call) -> records.RecallReport | Raw:
    """Evidence for whoever was not there."""
    query: records.RecallReportQuery = call.query
    detail = recall_views.detail(call, call.path["recall_id"])
    with call.state.database.read() as session:
        recall = recalling.get(session, detail.recall.id)
        served = [
            records.EvidenceOfDevice(
                target=item.target,
                served=lineage_views.served(session, serving.since(session, item.target, recall.created_at)),
            )
            for item in detail.devices[:_MOST_EVIDENCE]
        ]
        found = records.RecallReport(
            made_at=call.state.now(),
            fleet=call.state.keyring.fleet,
            detail=detail,
            served=served,
            decisions=_decisions(session, recall),
        )
    if query.format == "json":
        return found
    return Raw(
        body=recall_page.render(found).encode(),
        media_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )


def _decisions(session: Session, recall: models.Recall) -> list[records.Decision]:
    rows = session.scalars(
        select(models.Audit)
        .where((models.Audit.subject == recall.id) | models.Audit.why.startswith(f"recall {recall.id}:"))
        .order_by(models.Audit.id)
        .limit(_MOST_EVIDENCE)
    )
    return [
        records.Decision(
            at=row.at,
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            rollout=row.rollout,
            target=row.target_id,
            why=row.why,
        )
        for row in rows
    ]


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="POST",
        rule="/recalls/plan",
        policy=Policy.READ,
        handler=plan,
        summary="What a recall of a data set would do",
        body=records.RecallPlanRequest,
        answer=records.RecallPlan,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="POST",
        rule="/recalls",
        policy=Policy.OPERATE,
        handler=create,
        summary="Recall a data set: hold its models back and roll its devices out to others",
        body=records.RecallCreate,
        answer=records.RecallDetail,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/recalls",
        policy=Policy.READ,
        handler=listing,
        summary="Recalls and how far they are",
        query=records.RecallQuery,
        answer=records.RecallList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/recalls/<recall_id>",
        policy=Policy.READ,
        handler=show,
        summary="A recall and every device of it",
        answer=records.RecallDetail,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/recalls/<recall_id>/report",
        policy=Policy.READ,
        handler=report,
        summary="Evidence of a recall, as JSON or as a page to print",
        query=records.RecallReportQuery,
        answer=records.RecallReport,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="POST",
        rule="/recalls/<recall_id>/resume",
        policy=Policy.OPERATE,
        handler=resume,
        summary="Carry out what a recall has not",
        answer=records.RecallDetail,
        errors=(*_REFUSED, 404, 409),
    ),
    Route(
        method="POST",
        rule="/recalls/<recall_id>/lift",
        policy=Policy.OPERATE,
        handler=lift,
        summary="End a recall: its models may be deployed again",
        body=records.RecallLift,
        answer=records.RecallDetail,
        errors=(*_REFUSED, 404, 409),
    ),
)
