"""Who would get a rollout in which wave, before anybody begins it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import selectors, waves
from edgeflow_mlflow.services.state import State

_SOME = 12


@dataclass(frozen=True, kw_only=True)
class Wave:
    """One wave as it would be."""

    targets: int
    online: int
    is_drawn: bool
    some: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """All waves, and what stands in the way."""

    targets: int
    online: int
    held: int
    elsewhere: Counter[str]
    waves: tuple[Wave, ...]


def preview(state: State, session: Session, names: Sequence[str], words: Sequence[str]) -> Preview:
    """Divide these targets as a rollout with such waves would."""
    specified = waves.parse(words)
    found = session.execute(
        select(
            models.Target.id,
            models.Target.labels,
            models.Target.presence,
            models.Target.last_seen_at,
            models.Target.held_at,
            models.Target.deployment_id,
        )
        .where(models.Target.id.in_(names))
        .order_by(models.Target.id)
    ).all()
    candidates = [
        waves.Candidate(
            id=row.id,
            labels=selectors.known(row.labels, row.presence),
            online=state.is_online(row.last_seen_at),
        )
        for row in found
    ]
    online = {item.id for item in candidates if item.online}
    deployments = {
        row.id: row.name for row in session.execute(select(models.Deployment.id, models.Deployment.name))
    }
    # Where waves are no selectors the draw decides, and that of the real rollout will be another.
    is_drawn = len(specified) > 1 and any(isinstance(wave, waves.Share) for wave in specified)
    return Preview(
        targets=len(candidates),
        online=len(online),
        held=sum(row.held_at is not None for row in found),
        elsewhere=Counter(
            deployments[row.deployment_id] for row in found if row.deployment_id in deployments
        ),
        waves=tuple(
            Wave(
                targets=len(members),
                online=len(online.intersection(members)),
                is_drawn=is_drawn,
                some=tuple(sorted(members)[:_SOME]),
            )
            for members in waves.divide(candidates, specified, "preview")
        ),
    )
