"""What is done to a request before the graph and to its outputs after it, as declared with the model.

Pure numpy, the same code on the device and in a notebook: `edgeflow_agent.steps.load("steps.json")`. The
document is described in docs/steps.md. Needs neither onnxruntime nor, but to decode images, Pillow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeflow_agent.steps.place import FILE, beside, of_graph

if TYPE_CHECKING:
    from edgeflow_agent.steps.flow import Feed
    from edgeflow_agent.steps.pipeline import Pipeline, load

__all__ = ["FILE", "Feed", "Pipeline", "beside", "load", "of_graph"]

# An agent whose model has no steps does without them: 20 ms of its start and 2 MB.
_LATER = {"Feed": "flow", "Pipeline": "pipeline", "load": "pipeline"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
