"""What recalls hold back: asked before anything is deployed."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from edgeflow_mlflow import errors
from edgeflow_mlflow.db import dialects, models
from edgeflow_mlflow.domain import lineage

# How many a device is told: a document has 64 KiB.
MOST_TOLD = 100
_BEGINNING = 0x65646765_7265636C  # any number that nobody else takes


def settle(session: Session, *, begins: bool = False) -> None:
    """Whoever gives models to devices calls this before asking what is held back, and keeps a recall from
    beginning until that is committed; whoever begins one waits for all of those. So a device got its model
    before, and is found by the recall, or asks after it, and gets none."""
    dialects.lock(session, _BEGINNING, shared=not begins)


def standing(session: Session) -> list[models.Recall]:
    """Recalls that were not lifted."""
    return list(
        session.scalars(
            select(models.Recall)
            .options(defer(models.Recall.plan))
            .where(models.Recall.lifted_at.is_(None))
            .order_by(models.Recall.created_at)
        )
    )


def holding(session: Session, bundle: models.Bundle) -> models.Recall | None:
    """The recall that holds a bundle back: it was made from a recalled data set, whenever it was published,
    or has the bytes of one that was."""
    for recall in standing(session):
        if bundle.digest in recall.digests or _comes_from(bundle, recall):
            return recall
    return None


def _comes_from(bundle: models.Bundle, recall: models.Recall) -> bool:
    children = lineage.among(lineage.from_rows(bundle.lineage.get("edges", ())))
    roots = [lineage.dataset(item) for item in recall.datasets]
    return bundle.lineage.get("node") in lineage.descend(roots, children, any_use=recall.any_use)


def refuse(session: Session, bundle: models.Bundle) -> None:
    """Raise ConflictError when a recall holds a bundle back."""
    recall = holding(session, bundle)
    if recall is not None:
        names = ", ".join(sorted({item["name"] for item in recall.plan["datasets"]}))
        raise errors.ConflictError(
            f"{bundle.model_name}/{bundle.model_version} was trained on {names}, which {recall.created_by} "
            f"has recalled ({recall.id}: {recall.why}): deploy a version that was not, or end the recall "
            f"with `edgeflow recall lift {recall.id}`"
        )


def digests(session: Session, model_name: str) -> tuple[str, ...]:
    """What devices are not to keep to fall back on: those of their own model first."""
    found: dict[str, bool] = {}
    for recall in standing(session):
        for digest, name in recall.digests.items():
            found[digest] = found.get(digest, False) or name == model_name
    ordered = sorted(found, key=lambda digest: (not found[digest], digest))
    return tuple(ordered[:MOST_TOLD])
