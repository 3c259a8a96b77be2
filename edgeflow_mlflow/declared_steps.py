"""The steps that a model is logged with: checked against its graph before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeflow_agent import errors as agent_errors
from edgeflow_agent import steps
from edgeflow_agent.wire.documents import TensorSpec
from edgeflow_mlflow import errors


def checked(
    given: Any, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> steps.Pipeline:
    """A pipeline from whatever `steps.load` takes; raise InvalidError when it does not fit the graph, whose
    inputs and outputs come as the companion file holds them."""
    try:
        pipeline = steps.load(given)
        pipeline.check(_specs(inputs), _specs(outputs))
    except agent_errors.ModelError as error:
        raise errors.InvalidError(str(error)) from error
    return pipeline


def _specs(items: Sequence[Mapping[str, Any]]) -> list[TensorSpec]:
    return [
        TensorSpec(
            name=item["name"],
            # What is no tensor, like a classifier's list of maps, has no element type.
            dtype="seq" if item["dtype"] == "undefined" else f"tensor({item['dtype']})",
            shape=tuple(item["shape"]),
        )
        for item in items
    ]
