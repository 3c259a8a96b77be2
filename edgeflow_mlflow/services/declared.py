"""What a published model declares before its graph: that is what a caller sends."""

from __future__ import annotations

from typing import Any

import msgspec

from edgeflow_mlflow.db import models
from edgeflow_mlflow.services.publish import STEPS
from edgeflow_mlflow.services.state import State


def steps_before(state: State, bundle: models.Bundle) -> list[str]:
    """The names of the steps before the graph, in order; none when nothing is declared."""
    sha256 = next((item["sha256"] for item in bundle.files if item["path"] == STEPS), "")
    path = state.blobs.find(sha256) if sha256 else None
    if path is None:
        return []
    document: Any = msgspec.json.decode(path.read_bytes())
    return [str(item["step"]) for item in document.get("before", ())]
