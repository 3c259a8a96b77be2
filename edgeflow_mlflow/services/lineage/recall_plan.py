"""Which devices a bad data set has reached, and what each would have to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import recalls
from edgeflow_mlflow.domain.recalls import Remedy, Stand
from edgeflow_mlflow.services.lineage.edges import chunks
from edgeflow_mlflow.services.lineage.tracing import Reach

_Target = models.Target


@dataclass(frozen=True, kw_only=True)
class Row:
    """A device as a plan reads it."""

    target_id: str
    deployment_id: str | None
    rollout_id: str | None
    actual: str
    previous: str
    last_seen_at: datetime | None
    held_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that a data set has reached, and what is to be done."""

    row: Row
    stand: Stand
    model: str
    version: str
    remedy: Remedy
    goes_to: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recall would do. `alternatives` are model URIs by model name; empty text: there is none."""

    reach: Reach
    any_use: bool
    devices: Sequence[Device] = ()
    alternatives: Mapping[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> list[models.Dataset]:
        """The data sets in question."""
        return list(self.reach.datasets)


def models_concerned(session: Session, reach: Reach) -> set[str]:
    """The names of the models for which there has to be something to go to."""
    return {name for name, _ in reach.versions()} | {
        name
        for chunk in chunks(sorted(reach.bundles))
        for name in session.scalars(
            select(models.Bundle.model_name).where(models.Bundle.id.in_(chunk)).distinct()
        )
    }


def plan(session: Session, reach: Reach, *, any_use: bool, alternatives: Mapping[str, str]) -> Plan:
    """Every device that serves, is to serve or could fall back on what a data set reached."""
    names = bundles_named(session, reach)
    by_digest = {digest: (name, version) for digest, name, version in names.values()}
    tainted_rollouts = {
        rollout: bundle
        for chunk in chunks(sorted(reach.bundles))
        for rollout, bundle in session.execute(
            select(models.Rollout.id, models.Rollout.bundle_id).where(models.Rollout.bundle_id.in_(chunk))
        )
    }
    wanted_by = _wanted_by_deployments(session, tainted_rollouts)
    devices = []
    for row in _rows(session, reach, tainted_rollouts, wanted_by):
        wanted = tainted_rollouts.get(row.rollout_id or "") or wanted_by.get(row.deployment_id or "")
        if row.actual in by_digest:
            name, version = by_digest[row.actual]
        elif wanted:
            _, name, version = names[wanted]
        else:
            name, version = by_digest[row.previous]
        goes_to = alternatives.get(names[wanted][1], "") if wanted else ""
        stand = Stand(
            serves=row.actual in reach.digests,
            wanted=wanted is not None,
            fallback=row.previous in reach.digests,
            is_deployed=row.deployment_id is not None,
            has_alternative=bool(goes_to),
        )
        devices.append(
            Device(
                row=row,
                stand=stand,
                model=name,
                version=version,
                remedy=recalls.remedy(stand),
                goes_to=goes_to,
            )
        )
    return Plan(reach=reach, any_use=any_use, devices=devices, alternatives=alternatives)


def bundles_named(session: Session, reach: Reach) -> dict[str, tuple[str, str, str]]:
    """Digest, name and version of every bundle that was reached."""
    columns = select(
        models.Bundle.id, models.Bundle.digest, models.Bundle.model_name, models.Bundle.model_version
    )
    return {
        identifier: (digest, name, version)
        for chunk in chunks(sorted(reach.bundles))
        for identifier, digest, name, version in session.execute(columns.where(models.Bundle.id.in_(chunk)))
    }


def _wanted_by_deployments(session: Session, tainted: Mapping[str, str]) -> dict[str, str]:
    """Living deployments that go to a tainted bundle: their devices may still wait for their wave."""
    found = session.execute(
        select(models.Deployment.id, models.Deployment.rollout_id).where(
            models.Deployment.live_name.is_not(None)
        )
    )
    return {deployment: tainted[rollout] for deployment, rollout in found if rollout in tainted}


def _rows(
    session: Session, reach: Reach, rollouts: Mapping[str, str], deployments: Mapping[str, str]
) -> list[Row]:
    found: dict[str, Row] = {}
    for column, values in (
        (_Target.actual_digest, sorted(reach.digests)),
        (_Target.previous_digest, sorted(reach.digests)),
        (_Target.rollout_id, sorted(rollouts)),
        (_Target.deployment_id, sorted(deployments)),
    ):
        found |= {row.target_id: row for row in rows(session, column, values)}
    return [found[name] for name in sorted(found)]


def rows(session: Session, column: Any, values: Collection[str]) -> Iterator[Row]:
    """Targets by the values of a column."""
    query = select(
        _Target.id,
        _Target.deployment_id,
        _Target.rollout_id,
        _Target.actual_digest,
        _Target.previous_digest,
        _Target.last_seen_at,
        _Target.held_at,
    )
    for chunk in chunks(values):
        for target, deployment, rollout, actual, previous, seen, held in session.execute(
            query.where(column.in_(chunk))
        ):
            yield Row(
                target_id=target,
                deployment_id=deployment,
                rollout_id=rollout,
                actual=actual,
                previous=previous,
                last_seen_at=seen,
                held_at=held,
            )
