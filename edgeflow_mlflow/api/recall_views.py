"""Recalls as the API shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.api import lineage_views, records
from edgeflow_mlflow.api.routing import Call
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import one_of
from edgeflow_mlflow.domain import lineage
from edgeflow_mlflow.domain.recalls import Status
from edgeflow_mlflow.services.lineage import edges, recall_progress, recalling


def detail(call: Call, recall_id: str) -> records.RecallDetail:
    """A recall with every device of it."""
    with call.state.database.read() as session:
        recall = recalling.get(session, recall_id)
        found = recall_progress.of(call.state, session, recall)
        named = {key: row.name for key, row in edges.datasets_by_id(session, recall.datasets).items()}
        words = lineage_views.in_words(call, named)
        names = deployment_names(session, {item.target.deployment_id for item in found})
        served = _model_names(session, {item.serves for item in found})
    return records.RecallDetail(
        recall=view(recall, found),
        versions=[
            records.ReachedVersion(
                model=item["model"],
                version=item["version"],
                way=[words(edge) for edge in lineage.from_rows(item["way"])],
            )
            for item in recall.plan["versions"]
            if call.sees_model(item["model"])
        ],
        devices=[
            records.RecallDevice(
                target=item.target.target_id,
                deployment=names.get(item.target.deployment_id, ""),
                model=item.target.model_name,
                version=item.target.model_version,
                bonds=item.target.bonds,
                remedy=item.target.remedy,
                goes_to=item.target.goes_to,
                status=item.status.value,
                error=item.target.error,
                serves=item.serves,
                serves_name=served.get(item.serves, ""),
                corrected_at=item.corrected_at,
                last_seen_at=item.last_seen_at,
            )
            for item in found
        ],
    )


def view(recall: models.Recall, found: Sequence[recall_progress.Progress]) -> records.RecallView:
    """A recall, its devices counted."""
    counts = Counter(item.status for item in found)
    open_ones = counts[Status.UNDER_WAY] + counts[Status.FAILED] + counts[Status.UNMANAGED]
    return records.RecallView(
        id=recall.id,
        why=recall.why,
        datasets=sorted({f"{item['name']} ({item['digest']})" for item in recall.plan["datasets"]}),
        any_use=recall.any_use,
        created_at=recall.created_at,
        created_by=recall.created_by,
        lifted_at=recall.lifted_at,
        lifted_by=recall.lifted_by,
        lift_why=recall.lift_why,
        counts={status.value: number for status, number in sorted(counts.items())},
        done=open_ones == 0,
    )


def _model_names(session: Session, digests: set[str]) -> dict[str, str]:
    """Name and version of what has these bytes; under several names, of the newest."""
    bundle = models.Bundle
    query = select(bundle.digest, bundle.model_name, bundle.model_version).order_by(bundle.created_at)
    return {
        digest: f"{name}/{version}"
        for chunk in edges.chunks(sorted(digests))
        for digest, name, version in session.execute(query.where(one_of(session, bundle.digest, chunk)))
    }


def deployment_names(session: Session, ids: set[str]) -> dict[str, str]:
    """The names of deployments by their ids."""
    rows = select(models.Deployment.id, models.Deployment.name)
    return {
        identifier: name
        for chunk in edges.chunks(sorted(ids))
        for identifier, name in session.execute(rows.where(models.Deployment.id.in_(chunk)))
    }
