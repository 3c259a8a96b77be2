"""Deployments and their rollouts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from edgeflow_agent.wire import documents
from edgeflow_mlflow.api.records.common import Input, Output, Short, TargetId, Uri
from edgeflow_mlflow.api.records.rollouts import RolloutSettings
from edgeflow_mlflow.api.records.targets import ExecutionView


class Place(Input, frozen=True):
    """Which targets: exactly one of the three."""

    targets: Annotated[list[TargetId], msgspec.Meta(max_length=10_000)] = []
    fleet: Short = ""
    selector: Annotated[str, msgspec.Meta(max_length=1024)] = ""


class RuntimeSettings(Input, frozen=True):
    """How a device runs the model. What is absent is the device's own setting, and for the trial load
    120 s and 4096 MiB."""

    providers: Annotated[list[Short], msgspec.Meta(max_length=16)] | msgspec.UnsetType = msgspec.UNSET
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] | msgspec.UnsetType = msgspec.UNSET
    max_concurrent: Annotated[int, msgspec.Meta(ge=0, le=1024)] | msgspec.UnsetType = msgspec.UNSET
    load_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] | msgspec.UnsetType = msgspec.UNSET
    max_memory_mb: Annotated[int, msgspec.Meta(ge=64, le=2**20)] | msgspec.UnsetType = msgspec.UNSET


class TrialSettings(Input, frozen=True):
    """How long a new model is on trial after the swap, and what sends it back. What is absent: no trial,
    a tenth of errors, latency not watched."""

    duration_s: Annotated[float, msgspec.Meta(ge=0, le=7 * 86400)] | msgspec.UnsetType = msgspec.UNSET
    minimum_requests: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | msgspec.UnsetType = msgspec.UNSET
    max_error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | msgspec.UnsetType = msgspec.UNSET
    max_latency_ratio: Annotated[float, msgspec.Meta(ge=0, le=1000)] | msgspec.UnsetType = msgspec.UNSET


class MonitorSettings(Input, frozen=True):
    """How long a window of telemetry is (absent: 60 s), and which share of requests a device keeps whole, to
    be fetched on demand (absent: none)."""

    window_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] | msgspec.UnsetType = msgspec.UNSET
    capture_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | msgspec.UnsetType = msgspec.UNSET


class DeploymentCreate(Input, frozen=True):
    """Bind a model to targets. A URI with an alias is followed unless `follow_alias` is false."""

    name: TargetId
    model_uri: Uri
    where: Place
    runtime: RuntimeSettings = RuntimeSettings()
    trial: TrialSettings = TrialSettings()
    monitor: MonitorSettings = MonitorSettings()
    rollout: RolloutSettings = RolloutSettings()
    follow_alias: bool = True
    replace: bool = False


class DeploymentChange(Input, frozen=True):
    """Move a deployment: to another model, other settings, other targets. What is absent stays, each
    single setting too."""

    model_uri: Uri | None = None
    where: Place | None = None
    runtime: RuntimeSettings = RuntimeSettings()
    trial: TrialSettings = TrialSettings()
    monitor: MonitorSettings = MonitorSettings()
    rollout: RolloutSettings = RolloutSettings()
    follow_alias: bool = True
    replace: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=1024)] = ""


class DeploymentDelete(Input, frozen=True):
    """Whether devices keep serving what they have."""

    keep_serving: bool = False


class Model(Output, frozen=True):
    """A model version and its files as devices get them."""

    name: str
    version: str
    run_id: str
    model_id: str
    digest: str
    bytes: int
    files: list[documents.FileRef]
    has_baseline: bool


class RolloutView(Output, frozen=True):
    """One revision of a deployment. `counts` has the executions by state; `runtime`, `trial` and `monitor`
    are the settings that were given; `state` says how the rollout goes, `why` what it waits for or why it
    stopped."""

    number: int
    state: str
    why: str
    wave: int
    model_uri: str
    model: Model
    status: str
    counts: dict[str, int]
    runtime: documents.Runtime
    trial: documents.Trial
    monitor: documents.Monitor
    reason: str
    created_at: datetime
    created_by: str


class DeploymentView(Output, frozen=True):
    """A deployment and its present rollout. `status` sums up the executions of that rollout."""

    id: str
    name: str
    flavor: str
    status: str
    model_uri: str
    alias: str
    fleet: str
    selector: str
    targets: list[str]
    rollout: RolloutView
    created_at: datetime
    created_by: str
    updated_at: datetime


class DeploymentDetail(Output, frozen=True):
    """A deployment, the executions of its present rollout and where its model comes from. `steps` names what
    is declared before the graph: with any, a request is what the first of them takes."""

    deployment: DeploymentView
    executions: list[ExecutionView]
    interface: documents.Interface
    lineage: dict[str, Any]
    steps: list[str] = []


class DeploymentList(Output, frozen=True):
    """A page of deployments."""

    deployments: list[DeploymentView]
    next_page_token: str = ""


class History(Output, frozen=True):
    """Every rollout of a deployment, newest first, with its executions."""

    deployment: str
    rollouts: list[RolloutView]
    executions: list[ExecutionView]
    next_page_token: str = ""
