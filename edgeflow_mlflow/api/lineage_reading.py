"""From MLflow into the edge table: one version when it appears, or everything again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from edgeflow_mlflow import errors
from edgeflow_mlflow.catalog import Catalog, Model
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import lineage
from edgeflow_mlflow.domain.lineage import Edge
from edgeflow_mlflow.services.lineage import edges
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

_PAGE = 200
_BUILT = "lineage_built"


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What a rebuild read: versions that MLflow has, bundles with facts of their own, edges in the end, and
    why some versions could not be read."""

    versions: int
    bundles: int
    edges: int
    problems: tuple[str, ...] = ()


def note(state: State, catalog: Catalog, model: Model) -> bool:
    """Write down where a version comes from; whether that can still grow, because its run goes on."""
    found = catalog.lineage(model)
    with state.database.write() as session:
        edges.note(session, found, state.now())
    return (found["run"] or {}).get("status") == "RUNNING"


def rebuild(state: State, catalog: Catalog, *, is_model: Callable[[Any], bool] = lambda row: True) -> Rebuilt:
    """Fill the edge table, from nothing if need be: what MLflow has now, and what was frozen when models were
    deployed, also of runs and versions that are gone. `is_model` leaves out what is no model."""
    found: dict[Edge, None] = {}
    datasets: dict[str, dict[str, str]] = {}
    problems: list[str] = []

    def take(facts: dict[str, Any]) -> None:
        found.update(dict.fromkeys(lineage.from_rows(facts.get("edges", ()))))
        datasets.update({item["id"]: item for item in facts.get("datasets", ()) if "id" in item})

    versions = 0
    for name, number in _versions(catalog, is_model):
        versions += 1
        try:
            take(catalog.lineage(catalog.resolve(f"models:/{name}/{number}")))
        except errors.ServerError as error:
            problems.append(f"{name}/{number}: {error}")
    with state.database.read() as session:
        frozen = session.scalars(select(models.Bundle.lineage)).all()
    for facts in frozen:
        take(facts)
    with state.database.write() as session:
        edges.add_datasets(session, datasets.values(), state.now())
        # What is there stays: it was noted while this was read, or MLflow did not answer for it this time.
        edges.add_edges(session, found)
        session.merge(models.Fact(name=_BUILT, value=state.now().isoformat()))
    return Rebuilt(versions=versions, bundles=len(frozen), edges=len(found), problems=tuple(problems[:100]))


def was_built(state: State) -> bool:
    """Whether everything was ever read: a registry may be older than Edgeflow."""
    with state.database.read() as session:
        return session.get(models.Fact, _BUILT) is not None


def _versions(catalog: Catalog, is_model: Callable[[Any], bool]) -> Iterator[tuple[str, str]]:
    token: str | None = None
    while True:
        page = catalog.registry().search_model_versions(max_results=_PAGE, page_token=token)
        yield from ((row.name, str(row.version)) for row in page if is_model(row))
        token = page.token
        if not token:
            return
