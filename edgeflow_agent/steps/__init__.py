"""What is done to a request before the graph and to its outputs after it, as declared with the model.

Pure numpy, the same code on the device and in a notebook: `edgeflow_agent.steps.load("steps.json")`. The
document is described in docs/steps.md. Needs neither onnxruntime nor, but to decode images, Pillow.
"""

from __future__ import annotations

from edgeflow_agent.steps.flow import Feed
from edgeflow_agent.steps.pipeline import FILE, Pipeline, beside, load, of_graph

__all__ = ["FILE", "Feed", "Pipeline", "beside", "load", "of_graph"]
