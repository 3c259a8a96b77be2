"""Where a model comes from, read from MLflow: its run, the data sets, and every model that it was made from.

MLflow's own data has gaps (a version without a run, a run that was deleted); each one found is written down
with its reason instead of failing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlflow.exceptions import MlflowException

from edgeflow_mlflow.domain import lineage
from edgeflow_mlflow.domain.lineage import Edge

# The SHA-256 of everything in a data set: a tag of the input, or of the run with MLflow's digest behind it.
CONTENT_TAG = "edgeflow.content"
# What for, with MLflow's digest and the context behind it.
USED_TAG = "edgeflow.used"
# What a run began its training with, as a model URI, where `mlflow.log_inputs(models=…)` was not used.
STARTED_FROM_TAG = "edgeflow.started_from"
_MAX_NODES = 500
_PARENT_RUN = "mlflow.parentRunId"
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]{8,})")
_VERSION = re.compile(r"models:/(?P<name>[^@/]+)/(?P<version>[0-9]+)")


class Ancestry:
    """Reads upward from one node through MLflow's stores."""

    def __init__(self, tracking: Callable[[], Any], registry: Callable[[], Any]) -> None:
        self._tracking = tracking
        self._registry = registry
        self.edges: dict[Edge, None] = {}
        self.datasets: dict[str, dict[str, str]] = {}
        self.gaps: list[dict[str, str]] = []

    def climb(self, root: str) -> None:
        """Follow everything that `root` was made from."""
        waiting, seen = [root], {root}
        while waiting and len(seen) < _MAX_NODES:
            node = waiting.pop(0)
            for edge in self._edges_of(node):
                self.edges[edge] = None
                if edge.parent not in seen and lineage.kind_of(edge.parent) != "dataset":
                    seen.add(edge.parent)
                    waiting.append(edge.parent)

    def _edges_of(self, node: str) -> list[Edge]:
        key = lineage.key_of(node)
        read = {"version": self._of_version, "logged": self._of_logged, "run": self._of_run}
        try:
            return list(read[lineage.kind_of(node)](node, key))
        except MlflowException as error:
            self.gaps.append({"what": node, "why": error.message})
            return []

    def _of_version(self, node: str, key: str) -> Iterator[Edge]:
        del key
        name, number = lineage.name_and_version(node)
        found = self._registry().get_model_version(name, number)
        source = found.source or ""
        model_id = found.model_id or ""
        if match := _LOGGED.fullmatch(source):
            model_id = model_id or match["id"]
        if match := _VERSION.fullmatch(source):
            parent = lineage.version(match["name"], match["version"])
            yield Edge(child=node, parent=parent, how=lineage.COPIED_FROM)
        if model_id:
            yield Edge(child=node, parent=lineage.logged(model_id), how=lineage.REGISTERED_FROM)
        if found.run_id:
            yield Edge(child=node, parent=lineage.run(found.run_id), how=lineage.MADE_BY)

    def _of_logged(self, node: str, key: str) -> Iterator[Edge]:
        found = self._tracking().get_logged_model(key)
        if found.source_run_id:
            parent = lineage.run(found.source_run_id)
            experiment = str(found.experiment_id)
            yield Edge(child=node, parent=parent, how=lineage.LOGGED_BY, experiment_id=experiment)

    def _of_run(self, node: str, key: str) -> Iterator[Edge]:
        found = self._tracking().get_run(key)
        experiment = str(found.info.experiment_id)

        def edge(parent: str, how: str, context: str = "") -> Edge:
            return Edge(child=node, parent=parent, how=how, context=context, experiment_id=experiment)

        for item in dataset_facts(found):
            self.datasets.setdefault(item["id"], item)
            for context in {item["context"], *_contexts(found, item["digest"])}:
                yield edge(lineage.dataset(item["id"]), lineage.USED, context[:256])
        own = {item.model_id for item in getattr(found.outputs, "model_outputs", None) or ()}
        for item in getattr(found.inputs, "model_inputs", None) or ():
            # A run that tests its own model does not descend from it.
            if item.model_id and item.model_id not in own:
                yield edge(lineage.logged(item.model_id), lineage.STARTED_FROM)
        if parent := found.data.tags.get(_PARENT_RUN):
            yield edge(lineage.run(parent), lineage.PART_OF)
        uri = found.data.tags.get(STARTED_FROM_TAG, "")
        if match := _LOGGED.fullmatch(uri):
            yield edge(lineage.logged(match["id"]), lineage.STARTED_FROM)
        elif match := _VERSION.fullmatch(uri):
            yield edge(lineage.version(match["name"], match["version"]), lineage.STARTED_FROM)
        elif uri:
            self.gaps.append(
                {"what": node, "why": f"its tag {STARTED_FROM_TAG} is no models:/NAME/VERSION: {uri[:200]}"}
            )


def _contexts(run: Any, digest: str) -> list[str]:
    """What else a run used a data set for: MLflow keeps the first context only."""
    prefix = f"{USED_TAG}.{digest}."
    return [key.removeprefix(prefix) for key in run.data.tags if key.startswith(prefix)]


def _storable(text: str | None) -> str:
    """PostgreSQL takes everything but this one character."""
    return (text or "").replace("\0", "\ufffd")


def run_facts(run: Any) -> dict[str, Any]:
    """A run as plain data: who, when, from which source, parameters, metrics and tags."""
    tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.log-model.history"}
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "experiment_id": str(run.info.experiment_id),
        "status": run.info.status,
        "user": tags.get("mlflow.user", run.info.user_id or ""),
        "started_ms": run.info.start_time,
        "ended_ms": run.info.end_time,
        "source": tags.get("mlflow.source.name", ""),
        "commit": tags.get("mlflow.source.git.commit", ""),
        "params": dict(run.data.params),
        "metrics": finite(run.data.metrics),
        "tags": {key: value for key, value in tags.items() if not key.startswith("mlflow.")},
    }


def logged_facts(logged: Any) -> dict[str, Any]:
    """A logged model as plain data."""
    return {
        "id": logged.model_id,
        "name": logged.name,
        "experiment_id": str(logged.experiment_id),
        "params": dict(logged.params or {}),
        "metrics": finite({item.key: item.value for item in logged.metrics or ()}),
    }


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no word for what is not finite, and PostgreSQL takes nothing else."""
    return {key: value if math.isfinite(value) else None for key, value in metrics.items()}


def dataset_facts(run: Any) -> list[dict[str, str]]:
    """The data sets that a run logged. MLflow's `digest` sees only the first rows and is a hint; `content` is
    the SHA-256 of everything, empty when nobody has computed it."""
    found = []
    for entry in getattr(run.inputs, "dataset_inputs", None) or ():
        tags = {tag.key: tag.value for tag in entry.tags}
        name, digest = _storable(entry.dataset.name), _storable(entry.dataset.digest)
        # The run's own tag comes first: MLflow drops the tags of an input that it has already.
        content = run.data.tags.get(f"{CONTENT_TAG}.{digest}") or tags.get(CONTENT_TAG, "")
        found.append(
            {
                "id": lineage.dataset_id(name, digest, content),
                "name": name,
                "digest": digest,
                "content": content,
                "source_type": _storable(entry.dataset.source_type),
                "source": _storable(entry.dataset.source),
                "context": _storable(tags.get("mlflow.data.context", "")),
            }
        )
    return found
