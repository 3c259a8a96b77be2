"""Questions to a device, carried over MQTT, and its answers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from edgeflow_mlflow.api.records.common import Input, Output

Timeout = Annotated[float, msgspec.Meta(gt=0, le=60)]


class PredictRequest(Input, frozen=True):
    """What to ask which of the deployment's targets (empty: any that is online). `inputs` is what
    `POST /infer` takes."""

    inputs: Any
    target: Annotated[str, msgspec.Meta(max_length=63)] = ""
    timeout_s: Timeout = 10.0


class DiagnoseRequest(Input, frozen=True):
    """How long to wait for the target's answer, in seconds."""

    timeout_s: Timeout = 10.0


class RemoteAnswer(Output, frozen=True):
    """The device's answer, with the status that its own HTTP would give."""

    target: str
    status: int
    answer: Any
