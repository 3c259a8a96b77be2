"""Where a model's steps lie. Light: the steps themselves are imported for models that have some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeflow_agent.wire.documents import TensorSpec

if TYPE_CHECKING:
    from edgeflow_agent.steps.pipeline import Pipeline

FILE = "steps.json"
MLFLOW_FOLDER = "extra_files"


def beside(path: Path) -> Pipeline | None:
    """The steps that lie beside a graph, or where MLflow keeps them in a model's folder; None when there are
    none. Raise ModelError when they are broken."""
    for file in (path.parent / FILE, path.parent / MLFLOW_FOLDER / FILE):
        if file.is_file():
            from edgeflow_agent.steps.pipeline import load

            return load(file)
    return None


def of_graph(path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Pipeline | None:
    """The same, checked against the graph and against what is installed here."""
    found = beside(path)
    if found is not None:
        found.check(inputs, outputs)
        found.check_installed()
    return found
