"""Where a model version is: the question before deleting it, and the promise of lineage."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, defer

from edgeflow_mlflow.db import models


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One target and its bond to one bundle: it is to serve it (`desired`), it says that it does
    (`actual`), or it keeps it to fall back on (`previous`)."""

    target: models.Target
    bundle: models.Bundle
    desired: bool
    actual: bool
    previous: bool


def of_bundles(session: Session, bundles: Collection[models.Bundle]) -> list[Usage]:
    """Every bond of a target to one of the bundles, in the order of the targets."""
    if not bundles:
        return []
    bonds = (
        select(models.Target.id, models.Rollout.bundle_id)
        .join(models.Rollout, models.Rollout.id == models.Target.rollout_id)
        .where(models.Rollout.bundle_id.in_([bundle.id for bundle in bundles]))
    )
    wanted: dict[str, str] = {target: bundle for target, bundle in session.execute(bonds)}  # noqa: C416
    by_id = {bundle.id: bundle for bundle in bundles}
    by_digest: dict[str, set[str]] = {}
    for bundle in bundles:
        by_digest.setdefault(bundle.digest, set()).add(bundle.id)
    targets = session.scalars(
        select(models.Target)
        .options(defer(models.Target.document))
        .where(
            or_(
                models.Target.id.in_(wanted),
                models.Target.actual_digest.in_(by_digest),
                models.Target.previous_digest.in_(by_digest),
            )
        )
        .order_by(models.Target.id)
    ).all()
    served = _served(session, targets)
    found = []
    for target in targets:
        desired = {wanted[target.id]} if target.id in wanted else set()
        actual = by_digest.get(target.actual_digest, set())
        if target.id in served:
            # The same bytes may be registered under several names; the execution says which it was.
            actual = actual & {served[target.id]}
        fallback = by_digest.get(target.previous_digest, set())
        found += [
            Usage(
                target=target,
                bundle=by_id[bundle],
                desired=bundle in desired,
                actual=bundle in actual,
                previous=bundle in fallback,
            )
            for bundle in sorted(desired | actual | fallback)
        ]
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
    """Every bond of a target to a model version."""
    return of_bundles(session, bundles_of(session, name, version))


def of_run(session: Session, run_id: str) -> list[Usage]:
    """Every bond of a target to a model that a run produced."""
    return of_bundles(session, bundles_of_runs(session, [run_id]))


def bundles_of(session: Session, name: str, version: str | None = None) -> list[models.Bundle]:
    """The published bundles of a model, or of one of its versions."""
    query = select(models.Bundle).where(models.Bundle.model_name == name)
    if version is not None:
        query = query.where(models.Bundle.model_version == version)
    return list(session.scalars(query))


def bundles_of_models(session: Session, names: Collection[str]) -> list[models.Bundle]:
    """The published bundles of several models."""
    return list(session.scalars(select(models.Bundle).where(models.Bundle.model_name.in_(names))))


def bundles_of_runs(session: Session, run_ids: Collection[str]) -> list[models.Bundle]:
    """The published bundles that runs produced."""
    return list(session.scalars(select(models.Bundle).where(models.Bundle.run_id.in_(run_ids))))


def bundles_of_experiments(session: Session, experiments: Collection[str]) -> list[models.Bundle]:
    """The published bundles of all runs of experiments."""
    experiment = models.Bundle.lineage["run"]["experiment_id"].as_string()
    return list(session.scalars(select(models.Bundle).where(experiment.in_(experiments))))
