"""From rows of lineage to what the API shows, as far as the caller may see it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.api import records
from edgeflow_mlflow.api.routing import Call
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import one_of
from edgeflow_mlflow.domain import lineage
from edgeflow_mlflow.domain.lineage import Edge
from edgeflow_mlflow.services.lineage import tracing

_DIRECT = frozenset({lineage.USED, lineage.LOGGED_BY, lineage.MADE_BY, lineage.REGISTERED_FROM})


def sees(call: Call, edge: Edge) -> bool:
    """Whether the caller may see an edge: a run and a logged model belong to an experiment, a version to its
    model."""
    if edge.experiment_id and not call.sees_experiment(edge.experiment_id):
        return False
    versions = (node for node in (edge.child, edge.parent) if lineage.kind_of(node) == "version")
    return all(call.sees_model(lineage.name_and_version(node)[0]) for node in versions)


def frozen(call: Call, found: Mapping[str, Any]) -> dict[str, Any]:
    """Where a model comes from, as far as the caller may see it."""
    experiment = (found.get("run") or found.get("logged_model") or {}).get("experiment_id")
    if experiment is not None and not call.sees_experiment(experiment):
        hidden = {"what": "run", "why": "you may not read its experiment"}
        parts = {name: found[name] for name in ("graph", "environment") if name in found}
        return {"run": None, "datasets": [], "logged_model": None, "gaps": [hidden], "edges": [], **parts}
    edges = lineage.from_rows(found.get("edges", ()))
    seen = [edge for edge in edges if sees(call, edge)]
    if len(seen) == len(edges):
        return dict(found)
    known = {lineage.key_of(edge.parent) for edge in seen if edge.how == lineage.USED}
    kept = [item for item in found.get("datasets", ()) if item.get("id") in known]
    return {**found, "edges": lineage.as_rows(seen), "datasets": kept}


def facts(call: Call, bundle: models.Bundle) -> records.ModelFactsView:
    """A bundle with its lineage."""
    found = frozen(call, bundle.lineage)
    gaps = [records.Gap(what=item["what"], why=item["why"]) for item in found.get("gaps", ())]
    if not bundle.baseline_sha256:
        gaps.append(
            records.Gap(
                what="baseline",
                why="the model was logged without samples (`log_model(samples=…)`): devices learn one",
            )
        )
    return records.ModelFactsView(
        model=bundle.model_name,
        version=bundle.model_version,
        digest=bundle.digest,
        files=[records.FileView(**item) for item in bundle.files],
        baseline_sha256=bundle.baseline_sha256,
        source=bundle.source,
        published_at=bundle.created_at,
        run=found.get("run"),
        logged_model=found.get("logged_model"),
        datasets=_uses(call, found),
        graph=found.get("graph") or {},
        environment=found.get("environment") or {},
        gaps=gaps,
    )


def _uses(call: Call, found: Mapping[str, Any]) -> list[records.DatasetUse]:
    children = lineage.among(lineage.from_rows(found.get("edges", ())))
    uses = []
    for item in found.get("datasets", ()):
        if "id" not in item:
            continue
        node = lineage.dataset(item["id"])
        below = lineage.descend([node], children, any_use=True)
        root = found.get("node", "")
        steps = lineage.way(root, below) if root in below else []
        inherited = any(edge.how not in _DIRECT for edge in steps)
        words = in_words(call, {item["id"]: item["name"]})
        uses.append(
            records.DatasetUse(
                **{name: item[name] for name in ("id", "name", "digest", "content", "source_type", "source")},
                context=item["context"],
                way=[words(edge) for edge in steps] if inherited else [],
            )
        )
    return uses


def in_words(call: Call, names: Mapping[str, str]) -> Callable[[Edge], str]:
    """Steps of ways in words, many ways having the same; `names` gives the data sets' names by their ids."""

    @functools.cache
    def words(edge: Edge) -> str:
        return tracing.as_words(edge, names) if sees(call, edge) else "a run that you may not read used it"

    return words


def dataset(row: models.Dataset) -> records.DatasetView:
    """A version of a data set."""
    return records.DatasetView(
        id=row.id,
        name=row.name,
        digest=row.digest,
        content=row.content,
        source_type=row.source_type,
        source=row.source,
    )


def served(session: Session, rows: Sequence[models.Served]) -> list[records.ServedView]:
    """Intervals with the names that people know."""
    bundles = _bundles(session, {row.bundle_id for row in rows})
    causes = {
        execution: (deployment, number)
        for execution, deployment, number in session.execute(
            select(models.Execution.id, models.Deployment.name, models.Rollout.number)
            .join(models.Rollout, models.Rollout.id == models.Execution.rollout_id)
            .join(models.Deployment, models.Deployment.id == models.Execution.deployment_id)
            .where(models.Execution.id.in_({row.execution_id for row in rows if row.execution_id}))
        )
    }
    found = []
    for row in rows:
        name, version = bundles.get(row.bundle_id, ("", ""))
        deployment, number = causes.get(row.execution_id, ("", None))
        found.append(
            records.ServedView(
                digest=row.digest,
                since=row.since,
                until=row.until,
                model=name,
                version=version,
                deployment=deployment,
                rollout=number,
                execution=row.execution_id,
            )
        )
    return found


def _bundles(session: Session, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    rows = session.execute(
        select(models.Bundle.id, models.Bundle.model_name, models.Bundle.model_version).where(
            one_of(session, models.Bundle.id, set(ids))
        )
    )
    return {identifier: (name, version) for identifier, name, version in rows}


def reached(
    call: Call,
    session: Session,
    rows: Sequence[models.Served],
    found: tracing.Reach,
    words: Callable[[Edge], str],
) -> list[records.ReachedDevice]:
    """Devices that a data set reached; `words` says a step of the way."""
    bundles = _bundles(session, {row.bundle_id for row in rows})
    present = select(models.Target.id, models.Target.last_seen_at).where(
        one_of(session, models.Target.id, {row.target_id for row in rows})
    )
    seen: dict[str, datetime | None] = dict(session.execute(present).tuples().all())
    devices = []
    for row in rows:
        name, version = bundles[row.bundle_id]
        status = "deleted"
        if row.target_id in seen:
            status = "online" if call.state.is_online(seen[row.target_id]) else "offline"
        devices.append(
            records.ReachedDevice(
                target=row.target_id,
                model=name,
                version=version,
                digest=row.digest,
                since=row.since,
                until=row.until,
                status=status,
                way=[words(edge) for edge in found.way(found.bundles[row.bundle_id])],
            )
        )
    return devices


def intent(found: tracing.Intent) -> records.IntentView:
    """What a device was to do."""
    return records.IntentView(
        action=found.execution.action,
        model=found.bundle.model_name,
        version=found.bundle.model_version,
        digest=found.bundle.digest,
        deployment=found.deployment.name,
        rollout=found.rollout.number,
        execution=found.execution.id,
        state=found.execution.state,
        decided_at=found.rollout.created_at,
        decided_by=found.rollout.created_by,
        reason=found.rollout.reason,
    )
