"""Routes that ask the chain from data set to device, from either end, and lay two ends beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import lineage_reading, lineage_views, model_facts, records, views
from edgeflow_mlflow.api.routing import Call, Policy, Route
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import differences, lineage
from edgeflow_mlflow.domain.lineage import Edge
from edgeflow_mlflow.services.lineage import edges, portraits, serving, tracing

_SEPARATOR = "\x1f"


def of_target(call: Call) -> records.TargetLineage:
    """From a device back to the data."""
    query: records.AtQuery = call.query
    with call.state.database.read() as session:
        found = tracing.of_target(session, call.path["target_id"], _aware(query.at), call.state.now())
        findings = [records.Gap(what=what, why=why) for what, why in found.findings]
        return records.TargetLineage(
            target=found.target_id,
            at=found.at,
            served=lineage_views.served(session, [found.served])[0] if found.served else None,
            intended=lineage_views.intent(found.intent) if found.intent else None,
            model=lineage_views.facts(call, found.bundle) if found.bundle else None,
            findings=findings,
        )


def history(call: Call) -> records.ServedList:
    """Everything that a device served."""
    target_id = call.path["target_id"]
    with call.state.database.read() as session:
        found = serving.history(session, target_id)
        if not found and session.get(models.Target, target_id) is None:
            raise errors.NotFoundError(f"there never was a target {target_id!r}")
        return records.ServedList(served=lineage_views.served(session, found))


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise errors.InvalidError("a moment needs a time zone: write it as 2026-03-03T12:00:00Z")
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise errors.InvalidError("that moment is outside the calendar") from error


def devices(call: Call) -> records.DatasetReach:
    """Devices that run a model trained on a data set, now or at a moment."""
    query: records.DevicesQuery = call.query
    moment = _aware(query.at)
    after = None
    if query.page_token:
        bundle, separator, target = query.page_token.partition(_SEPARATOR)
        if not separator:
            raise errors.InvalidError("page_token is the next_page_token of the page before")
        after = (bundle, target)
    with call.state.database.read() as session:
        below = edges.children(session)
        roots = chosen(
            call,
            session,
            below,
            name=query.name,
            digest=query.digest,
            content=query.content,
            dataset=query.dataset,
        )
        found = tracing.reach(session, roots, below, any_use=query.any_use)
        words = words_of(call, found)
        rows = serving.on_bundles(session, found.bundles, moment=moment, after=after, limit=query.limit + 1)
        kept, following = views.cut(
            rows, query.limit, lambda row: f"{row.bundle_id}{_SEPARATOR}{row.target_id}"
        )
        return records.DatasetReach(
            at=moment or call.state.now(),
            datasets=[lineage_views.dataset(item) for item in found.datasets],
            versions=[] if after else versions(call, found, words),
            devices=lineage_views.reached(call, session, kept, found, words),
            next_page_token=following,
        )


def chosen(
    call: Call, session: Session, below: tracing.Below, *, name: str, digest: str, content: str, dataset: str
) -> list[models.Dataset]:
    """Data sets by what was said of them; raise InvalidError when nothing was."""
    if not (name or digest or content or dataset):
        raise errors.InvalidError(
            "say which data set by name, digest (MLflow's), content (the SHA-256) or dataset (its id); "
            "/api/v1/datasets lists them"
        )
    found = edges.find_datasets(session, name=name, digest=digest, content=content, dataset_id=dataset)
    if len(found) > edges.MOST_DATASETS:
        raise errors.InvalidError(
            f"over {edges.MOST_DATASETS} versions of data sets fit: say its digest or its content too"
        )
    kept = visible(call, found, below)
    if not kept:
        raise errors.NotFoundError(
            "no model that this server knows used such a data set; `edgeflow lineage datasets` lists those "
            "that were, `edgeflow lineage rebuild` reads MLflow again"
        )
    return kept


def visible(call: Call, found: Sequence[models.Dataset], below: tracing.Below) -> list[models.Dataset]:
    """Those that were logged in an experiment which the caller may see."""
    below([lineage.dataset(item.id) for item in found])  # all in one question
    return [
        item
        for item in found
        if any(lineage_views.sees(call, edge) for edge in below([lineage.dataset(item.id)]))
    ]


def words_of(call: Call, found: tracing.Reach) -> Callable[[Edge], str]:
    """The steps of ways from these data sets, in words."""
    return lineage_views.in_words(call, {item.id: item.name for item in found.datasets})


def versions(call: Call, found: tracing.Reach, words: Callable[[Edge], str]) -> list[records.ReachedVersion]:
    """Registered versions that were reached; `words` says a step of the way."""
    return [
        records.ReachedVersion(
            model=name,
            version=number,
            way=[words(edge) for edge in found.way(lineage.version(name, number))],
        )
        for name, number in found.versions()
        if call.sees_model(name)
    ]


def datasets(call: Call) -> records.DatasetList:
    """Data sets that models were made from."""
    query: records.DatasetsQuery = call.query
    name, separator, identifier = query.page_token.partition(_SEPARATOR)
    if query.page_token and not separator:
        raise errors.InvalidError("page_token is the next_page_token of the page before")
    with call.state.database.read() as session:
        rows = edges.search_datasets(
            session, query.words, after=(name, identifier) if separator else None, limit=query.limit + 1
        )
        kept, following = views.cut(rows, query.limit, lambda row: f"{row.name}{_SEPARATOR}{row.id}")
        seen = visible(call, kept, edges.children(session))
        return records.DatasetList(
            datasets=[lineage_views.dataset(item) for item in seen],
            next_page_token=following,
        )


def graph(call: Call) -> records.GraphView:
    """What is above and below a node."""
    query: records.GraphQuery = call.query
    if lineage.kind_of(query.node) not in ("dataset", "run", "logged", "version"):
        raise errors.InvalidError("node is dataset:ID, run:ID, logged:ID or version:NAME/NUMBER")
    with call.state.database.read() as session:
        found, truncated = tracing.graph(session, query.node, limit=query.limit)
        found = [edge for edge in found if lineage_views.sees(call, edge)]
        ids = {lineage.key_of(edge.parent) for edge in found if lineage.kind_of(edge.parent) == "dataset"}
        named = edges.datasets_by_id(session, ids)
        if not found:
            raise errors.NotFoundError(
                f"nothing is known of {query.node}; `edgeflow lineage rebuild` reads MLflow again"
            )
    return records.GraphView(
        node=query.node,
        edges=[
            records.EdgeView(child=edge.child, parent=edge.parent, how=edge.how, context=edge.context)
            for edge in found
        ],
        datasets=[lineage_views.dataset(item) for item in named.values()],
        truncated=truncated,
    )


def diff(call: Call) -> records.Diff:
    """Two devices, two versions, or a device now and earlier."""
    query: records.DiffQuery = call.query
    sections = differences.compare(_portrait(call, query.left), _portrait(call, query.right))
    return records.Diff(
        left=query.left,
        right=query.right,
        sections=[
            records.SectionView(
                name=item.name,
                differences=[
                    records.DifferenceView(name=entry.name, left=entry.left, right=entry.right)
                    for entry in item.differences
                ],
                same=dict(item.same),
            )
            for item in sections
        ],
    )


def _portrait(call: Call, side: str) -> differences.Portrait:
    if ":/" in side:
        return portraits.of_model(model_facts.read(call, side))
    target, _, words = side.partition("@")
    try:
        moment = _aware(datetime.fromisoformat(words)) if words else None
    except ValueError as error:
        raise errors.InvalidError(
            f"{side!r} is no side: give a target, TARGET@2026-03-03T12:00:00Z, or a model URI such as "
            "models:/NAME/3"
        ) from error
    with call.state.database.read() as session:
        found = tracing.of_target(session, target, moment, call.state.now())
        if found.bundle is not None:
            found.bundle.lineage = lineage_views.frozen(call, found.bundle.lineage)
        sections = portraits.of_device(session, found)
        session.rollback()
    if not sections:
        raise errors.NotFoundError(f"{side}: {found.findings[0][1]}")
    return sections


def rebuild(call: Call) -> records.RebuildView:
    """Read MLflow again, and make the edge table anew."""
    found = lineage_reading.rebuild(call.state, call.catalog)
    return records.RebuildView(
        versions=found.versions, bundles=found.bundles, edges=found.edges, problems=list(found.problems)
    )


_REFUSED = (401, 403)
ROUTES = (
    Route(
        method="GET",
        rule="/targets/<target_id>/lineage",
        policy=Policy.READ,
        handler=of_target,
        summary="From a device back to its run and data sets, now or at a moment",
        query=records.AtQuery,
        answer=records.TargetLineage,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/targets/<target_id>/served",
        policy=Policy.READ,
        handler=history,
        summary="Everything that a device served, and when",
        answer=records.ServedList,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/datasets",
        policy=Policy.READ,
        handler=datasets,
        summary="Data sets that models were made from",
        query=records.DatasetsQuery,
        answer=records.DatasetList,
        errors=_REFUSED,
    ),
    Route(
        method="GET",
        rule="/lineage/devices",
        policy=Policy.READ,
        handler=devices,
        summary="Devices that run a model trained on a data set, now or at a moment",
        query=records.DevicesQuery,
        answer=records.DatasetReach,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="GET",
        rule="/lineage/diff",
        policy=Policy.READ,
        handler=diff,
        summary="What differs between two devices, two versions, or a device now and earlier",
        query=records.DiffQuery,
        answer=records.Diff,
        errors=(*_REFUSED, 404, 422),
    ),
    Route(
        method="GET",
        rule="/lineage/graph",
        policy=Policy.READ,
        handler=graph,
        summary="What a data set, run or version was made from, and what from it",
        query=records.GraphQuery,
        answer=records.GraphView,
        errors=(*_REFUSED, 404),
    ),
    Route(
        method="POST",
        rule="/lineage/rebuild",
        policy=Policy.ADMIN,
        handler=rebuild,
        summary="Read MLflow again and make the edge table anew",
        answer=records.RebuildView,
        errors=_REFUSED,
    ),
)
