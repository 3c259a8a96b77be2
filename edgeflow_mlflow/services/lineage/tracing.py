"""The questions: where does the model on this device come from, and where did this data set go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select, union_all
from sqlalchemy.orm import Session

from edgeflow_agent.wire.documents import Action
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import one_of
from edgeflow_mlflow.domain import lineage
from edgeflow_mlflow.domain.lineage import Edge
from edgeflow_mlflow.services.lineage import edges, serving

Below = Callable[[Collection[str]], Iterable[Edge]]


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What a device was to serve: the execution that said so and what it belongs to."""

    execution: models.Execution
    rollout: models.Rollout
    deployment: models.Deployment
    bundle: models.Bundle


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A device at a moment: what it said it served, by which decision, and what it was to serve."""

    target_id: str
    target: models.Target | None  # None: it was deleted since
    at: datetime
    is_now: bool
    served: models.Served | None = None
    bundle: models.Bundle | None = None
    cause: Intent | None = None
    intent: Intent | None = None
    findings: tuple[tuple[str, str], ...] = ()


def of_target(session: Session, target_id: str, moment: datetime | None, now: datetime) -> Trace:
    """What a device served at a moment (None: now) and by whose decision; raise NotFoundError when it was
    never heard of."""
    target = session.get(models.Target, target_id)
    if target is None and not serving.history(session, target_id, limit=1):
        raise errors.NotFoundError(
            f"there never was a target {target_id!r}; `edgeflow targets list` shows them"
        )
    if moment is None:
        served = serving.open_interval(session, target_id)
    else:
        served = serving.at(session, target_id, moment)
    bundle = session.get(models.Bundle, served.bundle_id) if served and served.bundle_id else None
    cause = _intent_of(session, served.execution_id) if served else None
    intent = _intended(session, target_id, moment)
    return Trace(
        target_id=target_id,
        target=target,
        at=moment or now,
        is_now=moment is None,
        served=served,
        bundle=bundle,
        cause=cause,
        intent=intent,
        findings=tuple(_findings(session, target_id, served, bundle, intent)),
    )


def _intended(session: Session, target_id: str, moment: datetime | None) -> Intent | None:
    query = select(models.Execution.id).where(models.Execution.target_id == target_id)
    if moment is not None:
        query = query.where(models.Execution.created_at <= moment)
    newest = session.scalar(query.order_by(models.Execution.generation.desc()).limit(1))
    return _intent_of(session, newest) if newest else None


def _intent_of(session: Session, execution_id: str) -> Intent | None:
    found = session.execute(
        select(models.Execution, models.Rollout, models.Deployment, models.Bundle)
        .join(models.Rollout, models.Rollout.id == models.Execution.rollout_id)
        .join(models.Deployment, models.Deployment.id == models.Rollout.deployment_id)
        .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
        .where(models.Execution.id == execution_id)
    ).first()
    if found is None:
        return None
    execution, rollout, deployment, bundle = found
    return Intent(execution=execution, rollout=rollout, deployment=deployment, bundle=bundle)


def _findings(
    session: Session,
    target_id: str,
    served: models.Served | None,
    bundle: models.Bundle | None,
    intent: Intent | None,
) -> list[tuple[str, str]]:
    """Where what is disagrees with what was meant, or is not known."""
    found = []
    wanted = intent.bundle if intent is not None and intent.execution.action == Action.INSTALL.value else None
    if served is None:
        first = session.scalar(
            select(models.Served.since)
            .where(models.Served.target_id == target_id)
            .order_by(models.Served.since)
            .limit(1)
        )
        what = "it has not said that it serves a model"
        found.append(
            ("served", what if first is None else f"{what}; the first time was {first:%Y-%m-%d %H:%M:%S} UTC")
        )
    elif bundle is None:
        why = (
            f"it serves {served.digest[:12]}, which this server never published: somebody put it there by "
            "hand, or the database was restored from a backup"
        )
        found.append(("digest", why))
    if wanted is not None and (served is None or served.digest != wanted.digest):
        found.append(
            ("intent", f"it is to serve {wanted.model_name}/{wanted.model_version}, which it does not (yet)")
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Everything that was made from some data sets: the nodes with the way to each, and the bundles."""

    datasets: Sequence[models.Dataset]
    found: Mapping[str, Edge | None]
    # Bundle id -> the node by which it was reached; of bundles with the same bytes as a reached one: that
    # one's.
    bundles: Mapping[str, str]
    digests: frozenset[str] = field(default_factory=frozenset)

    def way(self, node: str) -> list[Edge]:
        """From the data set down to a node."""
        return lineage.way(node, self.found)

    def versions(self) -> list[tuple[str, str]]:
        """Registered versions that were reached, by name and number."""
        found = [lineage.name_and_version(node) for node in self.found if lineage.kind_of(node) == "version"]
        return sorted(found, key=lambda item: (item[0], int(item[1]) if item[1].isdecimal() else 0))


def reach(session: Session, datasets: Sequence[models.Dataset], below: Below, *, any_use: bool) -> Reach:
    """Follow data sets down to every version and every published bundle; `below` is `edges.children`."""
    found = lineage.descend([lineage.dataset(item.id) for item in datasets], below, any_use=any_use)
    node_of: dict[str, str] = {}  # bundle -> node
    of_digest: dict[str, str] = {}
    others: dict[str, str] = {}  # bundle -> digest
    for identifier, digest, name, version, model_id, run_id in _bundles(session, found):
        nodes = lineage.version(name, version), lineage.logged(model_id), lineage.run(run_id)
        node = next((node for node in nodes if node in found), None)
        if node is None:
            others[identifier] = digest
        else:
            node_of[identifier] = of_digest[digest] = node
    # The same bytes are the same model, whatever they are called.
    node_of |= {bundle: of_digest[digest] for bundle, digest in others.items() if digest in of_digest}
    return Reach(datasets=datasets, found=found, bundles=node_of, digests=frozenset(of_digest))


def _bundles(session: Session, found: Collection[str]) -> list[Any]:
    """Published bundles of the nodes and those with the same bytes, and some others, always in one order."""
    bundle = models.Bundle
    columns = select(
        bundle.id, bundle.digest, bundle.model_name, bundle.model_version, bundle.model_id, bundle.run_id
    )
    rows: set[Any] = set()
    for chunk in edges.chunks(found):
        keys: dict[str, list[str]] = {}
        for node in chunk:
            keys.setdefault(lineage.kind_of(node), []).append(lineage.key_of(node))
        names, _, numbers = zip(*(key.rpartition("/") for key in keys.get("version", ["//"])), strict=True)
        ways = {
            # All names with all numbers: an index finds these far quicker than the pairs.
            "version": one_of(session, bundle.model_name, set(names))
            & one_of(session, bundle.model_version, set(numbers)),
            "logged": one_of(session, bundle.model_id, keys.get("logged", ())),
            "run": one_of(session, bundle.run_id, keys.get("run", ())),
        }
        digests = [select(bundle.digest).where(way) for kind, way in ways.items() if kind in keys]
        if digests:
            rows.update(session.execute(columns.where(bundle.digest.in_(union_all(*digests)))))
    return sorted(rows)


def graph(session: Session, node: str, *, limit: int) -> tuple[list[Edge], bool]:
    """The edges above and below a node, and whether there are more."""
    above = lineage.ascend(node, edges.parents(session), limit=limit)
    below = lineage.descend([node], edges.children(session), any_use=True)
    inner = [edge for edge in below.values() if edge is not None]
    found = list(dict.fromkeys([*above, *inner]))
    return found[:limit], len(found) > limit


def as_words(edge: Edge, names: Mapping[str, str]) -> str:
    """One step of a way for people; `names` gives the data sets' names by their ids."""
    context = f" ({edge.context})" if edge.context else ""
    return f"{_named(edge.child, names)} {edge.how} {_named(edge.parent, names)}{context}"


def _named(node: str, names: Mapping[str, str]) -> str:
    kind, key = lineage.kind_of(node), lineage.key_of(node)
    if kind == "dataset":
        return f"data set {names.get(key, key)}"
    return {"run": f"run {key}", "logged": f"logged model {key}", "version": f"version {key}"}[kind]
