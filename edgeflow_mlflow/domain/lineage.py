"""The graph of what was made from what: its nodes, its edges, and the ways through it.

A node is text: `dataset:ID`, `run:ID`, `logged:ID` (a logged model) or `version:NAME/NUMBER`. Edges go from
what was made to what it was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeflow_mlflow import errors

# How the child was made from the parent.
USED = "used"  # a run, a data set
LOGGED_BY = "logged by"  # a logged model, its run
MADE_BY = "made by"  # a version, the run that it names
REGISTERED_FROM = "registered from"  # a version, a logged model
COPIED_FROM = "copied from"  # a version, another version
STARTED_FROM = "started from"  # a run, the model that it trained on
PART_OF = "part of"  # a run, the run that it is nested in

# Contexts of a data set that was looked at, not learned from.
_LOOKED_AT = frozenset({"eval", "evaluation", "validation", "validate", "val", "test", "testing", "holdout"})
# A graph deeper or wider than this was made to be so.
MAX_NODES = 100_000


@dataclass(frozen=True, kw_only=True)
class Edge:
    """`child` was made from `parent`. `experiment_id` is the child's; empty for a version."""

    child: str
    parent: str
    how: str
    context: str = ""
    experiment_id: str = ""


def dataset(dataset_id: str) -> str:
    """The node of a data set."""
    return f"dataset:{dataset_id}"


def run(run_id: str) -> str:
    """The node of a run."""
    return f"run:{run_id}"


def logged(model_id: str) -> str:
    """The node of a logged model."""
    return f"logged:{model_id}"


def version(name: str, number: str) -> str:
    """The node of a version of a registered model."""
    return f"version:{name}/{number}"


def kind_of(node: str) -> str:
    """dataset, run, logged or version."""
    return node.partition(":")[0]


def key_of(node: str) -> str:
    """What stands behind the kind."""
    return node.partition(":")[2]


def name_and_version(node: str) -> tuple[str, str]:
    """The name and the number of a version's node."""
    name, _, number = key_of(node).rpartition("/")
    return name, number


def dataset_id(name: str, digest: str, content: str) -> str:
    """The identity of a data set's version, the same in all experiments: MLflow's own key has the experiment
    in it."""
    return hashlib.sha256("\0".join((name, digest, content)).encode()).hexdigest()[:32]


def is_learned_from(edge: Edge) -> bool:
    """Whether the child depends on the parent as a model depends on what it was trained with."""
    return edge.how != USED or edge.context.lower() not in _LOOKED_AT


def among(edges: Iterable[Edge]) -> Callable[[Collection[str]], Iterable[Edge]]:
    """The children of nodes among these edges, for `descend`."""
    by_parent: dict[str, list[Edge]] = {}
    for edge in edges:
        by_parent.setdefault(edge.parent, []).append(edge)
    return lambda nodes: (edge for node in nodes for edge in by_parent.get(node, ()))


def descend(
    roots: Iterable[str],
    children: Callable[[Collection[str]], Iterable[Edge]],
    *,
    any_use: bool = False,
) -> dict[str, Edge | None]:
    """Everything made from the roots, in the order of distance, each with the edge by which it was first
    reached (None for a root). Safe in a graph with cycles."""
    found: dict[str, Edge | None] = dict.fromkeys(roots)
    frontier: Collection[str] = list(found)
    while frontier:
        if len(found) > MAX_NODES:
            raise errors.InvalidError(
                f"over {MAX_NODES} things were made from it: say more closely what is meant"
            )
        following: list[str] = []
        for edge in sorted(children(frontier), key=lambda edge: (edge.parent, edge.child, edge.how)):
            if edge.child not in found and (any_use or is_learned_from(edge)):
                found[edge.child] = edge
                following.append(edge.child)
        frontier = following
    return found


def ascend(
    root: str, parents: Callable[[Collection[str]], Iterable[Edge]], *, limit: int = MAX_NODES
) -> list[Edge]:
    """Every edge above a node, nearest first."""
    found: dict[Edge, None] = {}
    seen = {root}
    frontier: Collection[str] = [root]
    while frontier and len(seen) < limit:
        edges = sorted(parents(frontier), key=lambda edge: (edge.child, edge.parent, edge.how))
        found.update(dict.fromkeys(edges))
        frontier = list(dict.fromkeys(edge.parent for edge in edges if edge.parent not in seen))
        seen.update(frontier)
    return list(found)


def way(node: str, found: Mapping[str, Edge | None]) -> list[Edge]:
    """The edges from a root down to a node, as `descend` found them."""
    steps: list[Edge] = []
    while (edge := found[node]) is not None:
        steps.append(edge)
        node = edge.parent
    return steps[::-1]


def as_rows(edges: Iterable[Edge]) -> list[list[str]]:
    """Edges as plain data."""
    return [[edge.child, edge.parent, edge.how, edge.context, edge.experiment_id] for edge in edges]


def from_rows(rows: Iterable[Iterable[str]]) -> list[Edge]:
    """The edges again."""
    return [
        Edge(child=child, parent=parent, how=how, context=context, experiment_id=experiment)
        for child, parent, how, context, experiment in rows
    ]


def refreshed(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a model after MLflow was read again. Nothing that was known is lost: a run or a model
    that is gone since keeps what was written down of it."""
    gone = {gap["what"] for gap in new["gaps"]}
    result = {**old}
    for part in ("run", "logged_model"):
        if new[part] is not None:
            result[part] = new[part]
    by_id = {item["id"]: item for item in (*old.get("datasets", ()), *new["datasets"]) if "id" in item}
    result["datasets"] = list(by_id.values())
    edges = dict.fromkeys(tuple(row) for row in (*old.get("edges", ()), *new["edges"]))
    result["edges"] = [list(row) for row in edges]
    known = {part for part in ("run", "logged_model") if result.get(part)}
    known |= {"datasets"} if result["datasets"] else set()
    gaps = [*new["gaps"], *(gap for gap in old.get("gaps", ()) if gap["what"] not in gone)]
    result["gaps"] = [gap for gap in gaps if gap["what"] not in known]
    return result
