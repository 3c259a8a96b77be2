"""The edge table: what was read from MLflow, kept in an order that can be asked from both ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import inserting, one_of
from edgeflow_mlflow.domain import lineage
from edgeflow_mlflow.domain.lineage import Edge

# SQLite takes 32,766 values in a statement; far fewer keep each one quick.
CHUNK = 500
MOST_DATASETS = 1000
_Edge = models.LineageEdge
_Dataset = models.Dataset


def note(session: Session, found: Mapping[str, Any], now: datetime) -> None:
    """Add what the lineage of one model says (see `Catalog.lineage`); what is known already stays."""
    add_datasets(session, found.get("datasets", ()), now)
    add_edges(session, lineage.from_rows(found.get("edges", ())))


def add_datasets(session: Session, found: Iterable[Mapping[str, str]], now: datetime) -> None:
    """Data sets, by what identifies them in all experiments."""
    rows = [
        {
            "id": item["id"],
            "name": item["name"][:512],
            "digest": item["digest"][:64],
            "content": item["content"][:64],
            "source_type": item["source_type"][:256],
            "source": item["source"][:10_000],
            "first_seen_at": now,
        }
        for item in found
        if "id" in item
    ]
    rows.sort(key=lambda row: str(row["id"]))  # always in one order: two writers do not wait for each other
    for chunk in chunks(rows):
        session.execute(inserting(session, _Dataset).on_conflict_do_nothing(), chunk)


def add_edges(session: Session, edges: Iterable[Edge]) -> None:
    """Edges; those that are there stay."""
    rows = [
        {
            "child": edge.child,
            "parent": edge.parent,
            "how": edge.how,
            "context": edge.context,
            "experiment_id": edge.experiment_id,
        }
        for edge in sorted(set(edges), key=lambda edge: (edge.child, edge.parent, edge.how, edge.context))
    ]
    for chunk in chunks(rows):
        session.execute(inserting(session, _Edge).on_conflict_do_nothing(), chunk)


def rename(session: Session, old: str, new: str) -> None:
    """Follow a model to its new name."""
    prefix = lineage.version(old, "")
    for column in (_Edge.child, _Edge.parent):
        for row in session.scalars(select(_Edge).where(column.startswith(prefix, autoescape=True))).all():
            name, number = lineage.name_and_version(getattr(row, column.key))
            if name == old:
                setattr(row, column.key, lineage.version(new, number))
        session.flush()


def children(session: Session) -> Callable[[Collection[str]], Iterable[Edge]]:
    """Edges below nodes, for `lineage.descend`: each node is asked for once."""
    known: dict[str, list[Edge]] = {}

    def below(nodes: Collection[str]) -> Iterable[Edge]:
        unknown = [node for node in nodes if node not in known]
        known.update((node, []) for node in unknown)
        for edge in _where(session, _Edge.parent, unknown):
            known[edge.parent].append(edge)
        return (edge for node in nodes for edge in known[node])

    return below


def parents(session: Session) -> Callable[[Collection[str]], Iterable[Edge]]:
    """Edges above nodes, for `lineage.ascend`."""
    return lambda nodes: _where(session, _Edge.child, nodes)


def _where(session: Session, column: Any, nodes: Collection[str]) -> Iterator[Edge]:
    for chunk in chunks(nodes):
        query = select(_Edge.child, _Edge.parent, _Edge.how, _Edge.context, _Edge.experiment_id)
        for child, parent, how, context, experiment in session.execute(
            query.where(one_of(session, column, chunk))
        ):
            yield Edge(child=child, parent=parent, how=how, context=context, experiment_id=experiment)


def find_datasets(
    session: Session, *, name: str = "", digest: str = "", content: str = "", dataset_id: str = ""
) -> list[models.Dataset]:
    """Every version of a data set that fits all that is given, whatever experiment it was logged in."""
    query = select(_Dataset)
    for column, value in (
        (_Dataset.name, name),
        (_Dataset.digest, digest),
        (_Dataset.content, content.removeprefix("sha256:")),
        (_Dataset.id, dataset_id),
    ):
        if value:
            query = query.where(column == value)
    return list(
        session.scalars(query.order_by(_Dataset.name, _Dataset.first_seen_at).limit(MOST_DATASETS + 1))
    )


def search_datasets(
    session: Session, words: str, *, after: tuple[str, str] | None, limit: int
) -> list[models.Dataset]:
    """Data sets whose name, digest or content begins with `words`, by name."""
    query = select(_Dataset).order_by(_Dataset.name, _Dataset.id).limit(limit)
    if words:
        query = query.where(
            or_(
                *(
                    column.startswith(words, autoescape=True)
                    for column in (_Dataset.name, _Dataset.digest, _Dataset.content, _Dataset.id)
                )
            )
        )
    if after is not None:
        name, identifier = after
        query = query.where(or_(_Dataset.name > name, (_Dataset.name == name) & (_Dataset.id > identifier)))
    return list(session.scalars(query))


def datasets_by_id(session: Session, ids: Collection[str]) -> dict[str, models.Dataset]:
    """Data sets by their ids."""
    return {
        row.id: row
        for chunk in chunks(ids)
        for row in session.scalars(select(_Dataset).where(one_of(session, _Dataset.id, chunk)))
    }


def chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    """The items, as many at a time as one statement takes."""
    found = list(items)
    return (found[start : start + CHUNK] for start in range(0, len(found), CHUNK))
