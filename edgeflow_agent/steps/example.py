"""A request that a model's steps would take, for people who try it for the first time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgeflow_agent.steps.flow import Before
from edgeflow_agent.steps.images import DecodeImage
from edgeflow_agent.steps.inputs import Field, Give
from edgeflow_agent.steps.signals import BytesWindow, Frame
from edgeflow_agent.steps.tables import Category, Columns

_JSON = "application/json"
_MOST_SAMPLES = 16


def example(steps: Sequence[Before]) -> tuple[str, str]:
    """Content type and body; a body that begins with @ stands for a file of the caller's."""
    if steps and isinstance(steps[0], DecodeImage):
        return "image/jpeg", "@photo.jpg"
    if steps and isinstance(steps[0], BytesWindow):
        return "application/octet-stream", "@file"
    value: Any = None
    known: dict[str, Any] = {}  # what a category takes, which columns would take for a number
    field = ""
    for step in steps:
        found: Any = None
        if isinstance(step, Field):
            field = step.field
        elif isinstance(step, Category):
            known[step.field] = step.values[0]
        elif isinstance(step, Columns):
            blank = {"string": "text", "bool": True}.get(step.dtype, 0)
            found = {name: known.get(name, step.defaults.get(name, blank)) for name in step.names}
        elif isinstance(step, Frame):
            found = [0.0] * (step.length if step.shorter == "refuse" else min(step.length, _MOST_SAMPLES))
        elif isinstance(step, (DecodeImage, BytesWindow)):
            found = "base64"
        elif isinstance(step, Give) and step.dtype is not None:
            found = {"string": "text", "bool": True}.get(step.dtype, 0)
        if found is not None:
            found = {field: found} if field else found
            value = {**value, **found} if isinstance(value, dict) and isinstance(found, dict) else found
        if isinstance(step, Give):
            field = ""
    return _JSON, json.dumps(value, ensure_ascii=False)
