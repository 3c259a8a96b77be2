"""How far a recall is: every device that it found, and those that came to light later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import recalls
from edgeflow_mlflow.domain.recalls import Remedy, Stand, Status
from edgeflow_mlflow.services.lineage import recall_plan
from edgeflow_mlflow.services.lineage.edges import chunks
from edgeflow_mlflow.services.lineage.recall_plan import Row
from edgeflow_mlflow.services.lineage.recalling import targets_of
from edgeflow_mlflow.services.lineage.tracing import Reach
from edgeflow_mlflow.services.state import State


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How a device of a recall stands."""

    target: models.RecallTarget
    status: Status
    serves: str  # digest
    corrected_at: datetime | None
    last_seen_at: datetime | None


def of(state: State, session: Session, recall: models.Recall) -> list[Progress]:
    """Every device of a recall; one that came to light later is added."""
    digests = set(recall.digests)
    rows = {row.target_id: row for row in targets_of(session, recall.id)}
    standing = _standing(session, digests, rows)
    corrected = _corrected_at(session, recall, digests, list(rows))
    found = []
    for name in sorted({*rows, *standing}):
        row = rows.get(name) or models.RecallTarget(
            recall_id=recall.id,
            target_id=name,
            deployment_id="",
            bonds=[],
            model_name="",
            model_version="",
            remedy=Remedy.FOLLOWS.value,
            goes_to="",
            error="",
        )
        target, stand = standing.get(name, (None, None))
        is_online = target is not None and state.is_online(target.last_seen_at)
        status = recalls.status(
            stand,
            decided=Remedy(row.remedy),
            is_online=is_online,
            is_held=target is not None and target.held_at is not None,
            error=row.error,
        )
        found.append(
            Progress(
                target=row,
                status=status,
                serves="" if target is None else target.actual,
                corrected_at=corrected.get(name) if status is Status.CORRECTED else None,
                last_seen_at=None if target is None else target.last_seen_at,
            )
        )
    return found


def _standing(session: Session, digests: set[str], known: Mapping[str, Any]) -> dict[str, tuple[Row, Stand]]:
    """How the known devices stand now, and others that have to do with a tainted model."""
    bundles = [
        bundle
        for chunk in chunks(sorted(digests))
        for bundle in session.scalars(select(models.Bundle.id).where(models.Bundle.digest.in_(chunk)))
    ]
    reach = Reach(datasets=(), found={}, bundles=dict.fromkeys(bundles, ""), digests=frozenset(digests))
    tainted = {
        item.row.target_id: (item.row, item.stand)
        for item in recall_plan.plan(session, reach, any_use=False, alternatives={}).devices
    }
    clean = Stand(serves=False, wanted=False, fallback=False, is_deployed=True, has_alternative=False)
    others = sorted(set(known) - set(tainted))
    return tainted | {
        row.target_id: (row, clean) for row in recall_plan.rows(session, models.Target.id, others)
    }


def _corrected_at(
    session: Session, recall: models.Recall, digests: set[str], targets: Sequence[str]
) -> dict[str, datetime]:
    """When each device first served something else, or was found to."""
    found: dict[str, datetime] = {}
    for chunk in chunks(targets):
        for row in session.scalars(
            select(models.Served)
            .where(
                models.Served.target_id.in_(chunk),
                or_(models.Served.until.is_(None), models.Served.until > recall.created_at),
            )
            .order_by(models.Served.since)
        ):
            if row.digest in digests:
                found.pop(row.target_id, None)
            else:
                found.setdefault(row.target_id, max(row.since, recall.created_at))
    return found
