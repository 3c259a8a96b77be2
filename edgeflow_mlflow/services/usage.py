"""Where a model version is: the question before deleting it, and the promise of lineage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One target and its bond to a bundle: it is to serve it (`desired`), it says that it does
    (`actual`), or it keeps it to fall back on (`previous`)."""

    target: models.Target
    bundle: models.Bundle
    desired: bool
    actual: bool
    previous: bool


def of_bundles(session: Session, bundles: list[models.Bundle]) -> list[Usage]:
    """Every target that is bound to one of the bundles in any of the three ways."""
    if not bundles:
        return []
    by_digest = {bundle.digest: bundle for bundle in bundles}
    desired = {
        target.id: bundle
        for target, bundle in session.execute(
            select(models.Target, models.Bundle)
            .join(models.Deployment, models.Deployment.id == models.Target.deployment_id)
            .join(models.Rollout, models.Rollout.id == models.Deployment.rollout_id)
            .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
            .where(models.Bundle.id.in_([bundle.id for bundle in bundles]))
        )
    }
    targets = session.scalars(select(models.Target).order_by(models.Target.id)).all()
    served = _served(session, targets)
    ids = {bundle.id for bundle in bundles}
    found = []
    for target in targets:
        actual = by_digest.get(target.actual_digest)
        # The same bytes may be registered under several names; the execution says which was deployed.
        if actual is not None and served.get(target.id, actual.id) not in ids:
            actual = None
        previous = by_digest.get(str(target.presence.get("previous_digest", "")))
        wanted = desired.get(target.id)
        bundle = wanted or actual or previous
        if bundle is not None:
            found.append(
                Usage(
                    target=target,
                    bundle=bundle,
                    desired=wanted is not None,
                    actual=actual is not None,
                    previous=previous is not None,
                )
            )
    return found


def _served(session: Session, targets: Sequence[models.Target]) -> dict[str, str]:
    """The bundle that each target says it serves, by the execution that brought it there."""
    named = {str(target.presence.get("execution", "")): target.id for target in targets}
    rows = session.execute(
        select(models.Execution.id, models.Rollout.bundle_id)
        .join(models.Rollout, models.Rollout.id == models.Execution.rollout_id)
        .where(models.Execution.id.in_(named))
    )
    return {named[execution]: bundle for execution, bundle in rows}


def of_version(session: Session, name: str, version: str) -> list[Usage]:
    """Every target that is bound to a model version."""
    return of_bundles(session, bundles_of(session, name, version))


def of_run(session: Session, run_id: str) -> list[Usage]:
    """Every target that is bound to a model that a run produced."""
    return of_bundles(
        session, list(session.scalars(select(models.Bundle).where(models.Bundle.run_id == run_id)))
    )


def bundles_of(session: Session, name: str, version: str | None = None) -> list[models.Bundle]:
    """The published bundles of a model, or of one of its versions."""
    query = select(models.Bundle).where(models.Bundle.model_name == name)
    if version is not None:
        query = query.where(models.Bundle.model_version == version)
    return list(session.scalars(query))
