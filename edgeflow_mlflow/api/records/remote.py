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


class CaptureView(Output, frozen=True):
    """A request that a device has kept whole; `size` in bytes of JSON, `at` by the device's clock."""

    id: str
    at: str
    size: int


class CaptureList(Output, frozen=True):
    """Requests that a device has kept, the newest first."""

    captures: list[CaptureView]


class Capture(Output, frozen=True):
    """A request and its answer, whole: `inputs` by name are what `POST /infer` takes as `{"inputs": …}`."""

    id: str
    at: str
    model: str
    version: str
    digest: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class RemoteAnswer(Output, frozen=True):
    """The device's answer, with the status that its own HTTP would give."""

    target: str
    status: int
    answer: Any
