"""Which targets have which labels: what an index can tell is told by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import one_of
from edgeflow_mlflow.domain import selectors
from edgeflow_mlflow.domain.selectors import Operator, Requirement

_Label = models.Label
_Target = models.Target
_BATCH = 250


def matching(
    session: Session,
    requirements: Sequence[Requirement],
    *,
    after: str,
    limit: int,
    where: Sequence[Any] = (),
) -> list[str]:
    """The ids of the first targets after `after` that fulfil every requirement, in order."""
    found: list[str] = []
    # Most of what one label names fulfils the rest too: a page is often full after one portion.
    batch = min(limit + limit // 8 + 8, _BATCH)
    for name, labels, said in _candidates(session, requirements, after, where, batch):
        if selectors.matches(tuple(requirements), selectors.known(labels, said)):
            found.append(name)
            if len(found) >= limit:
                break
    return found


def _candidates(
    session: Session, requirements: Sequence[Requirement], after: str, where: Sequence[Any], batch: int
) -> Iterator[Any]:
    """Targets that may fulfil them, in order, a batch at a time."""
    leading = next(filter(_can_lead, requirements), None)
    while True:
        ids = _ids(session, leading, after, batch)
        rows = session.execute(
            select(_Target.id, _Target.labels, _Target.presence)
            .where(one_of(session, _Target.id, ids), *where)
            .order_by(_Target.id)
        )
        yield from rows
        if len(ids) < batch:
            return
        after, batch = ids[-1], _BATCH


def _ids(session: Session, leading: Requirement | None, after: str, batch: int) -> list[str]:
    """The next batch: of the targets with one label, which an index has in order, or of all."""
    query = select(_Target.id).where(_Target.id > after).order_by(_Target.id)
    if leading is not None:
        query = select(_Label.target_id).where(_Label.key == leading.key, _Label.target_id > after)
        if leading.operator is Operator.EQUALS:
            query = query.where(_Label.value == leading.values[0])
        elif leading.operator is Operator.IN:
            query = query.where(_Label.value.in_(leading.values))
        query = query.order_by(_Label.target_id)
    return list(session.scalars(query.limit(batch)))


def _can_lead(requirement: Requirement) -> bool:
    # What a target says of itself stands in no label.
    return requirement.key not in selectors.FACTS and requirement.operator in (
        Operator.EQUALS,
        Operator.IN,
        Operator.EXISTS,
    )
