"""What the API takes and gives, as types: they check requests and make the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from edgeflow_agent.wire import documents, topics

# How long a page of a list may be.
MAX_LIMIT = 500

TargetId = Annotated[str, msgspec.Meta(pattern=f"^{topics.TARGET_ID.pattern}$", max_length=63)]
Label = Annotated[str, msgspec.Meta(max_length=256)]
Labels = dict[Annotated[str, msgspec.Meta(max_length=63)], Label]
Short = Annotated[str, msgspec.Meta(max_length=256)]
Uri = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)]
Token = Annotated[str, msgspec.Meta(max_length=512)]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request: a field that nobody knows is a typing error and is refused."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""


class PageQuery(Input, frozen=True):
    """How much of a list, and from where."""

    limit: Limit = 100
    page_token: Token = ""


class Error(Output, frozen=True):
    """MLflow's own shape, so that its clients show the message."""

    error_code: str
    message: str


class Empty(Output, frozen=True):
    """Done."""


# ---- health


class Health(Output, frozen=True):
    """The process answers."""

    status: str
    version: str


class Ready(Output, frozen=True):
    """Whether deployments can reach devices: the database answers and a hub runs. `mqtt` is empty when
    the broker is off or cannot start; devices then poll."""

    status: str
    hub: bool
    hub_holder: str = ""
    hub_fence: int = 0
    hub_pid: int = 0
    mqtt: str = ""
    mqtt_healthy: bool = False
    mqtt_connected: int = 0
    mqtt_error: str = ""


# ---- tokens


class TokenCreate(Input, frozen=True):
    """A new enrolment token."""

    uses: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=365 * 86400)] = 86400.0
    labels: Labels = {}
    target: TargetId | None = None
    note: Short = ""


class TokenView(Output, frozen=True):
    """A token without its secret."""

    id: str
    uses: int
    uses_left: int
    expires_at: datetime
    labels: dict[str, str]
    target: str | None
    note: str
    created_at: datetime
    created_by: str
    revoked: bool


class TokenCreated(Output, frozen=True):
    """The only time that the token's text is shown."""

    token: str
    details: TokenView


class TokenList(Output, frozen=True):
    """A page of tokens."""

    tokens: list[TokenView]
    next_page_token: str = ""


# ---- executions and reports


class ExecutionView(Output, frozen=True):
    """One target's part of a rollout."""

    id: str
    target: str
    deployment: str
    rollout: int
    generation: int
    action: str
    state: str
    reason: str
    message: str
    progress: float | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class ExecutionList(Output, frozen=True):
    """A page of executions, newest first."""

    executions: list[ExecutionView]
    next_page_token: str = ""


class ReportView(Output, frozen=True):
    """A device report, and what the server made of it."""

    state: str
    reason: str
    message: str
    progress: float | None
    generation: int
    decision: str
    device_at: datetime | None
    received_at: datetime


class ExecutionDetail(Output, frozen=True):
    """An execution with every report of it, in order of receipt."""

    execution: ExecutionView
    reports: list[ReportView]


# ---- targets


class Actual(Output, frozen=True):
    """What a device says of itself."""

    model: str
    version: str
    run_id: str
    digest: str
    previous_digest: str
    generation: int
    serving: bool
    stale: bool
    agent_version: str
    onnxruntime_version: str
    platform: str
    hostname: str
    infer_url: str


class TargetView(Output, frozen=True):
    """A target: `status` is online, offline or never_seen; `in_sync` whether it serves what it should."""

    id: str
    labels: dict[str, str]
    status: str
    connected: bool
    in_sync: bool
    deployment: str | None
    generation: int
    created_at: datetime
    last_seen_at: datetime | None
    actual: Actual
    execution: ExecutionView | None = None


class TargetList(Output, frozen=True):
    """A page of targets."""

    targets: list[TargetView]
    next_page_token: str = ""


class TargetQuery(PageQuery, frozen=True):
    """Which targets."""

    selector: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    deployment: Short = ""


class TargetChange(Input, frozen=True):
    """New labels, in place of the old."""

    labels: Labels


# ---- fleets


class FleetCreate(Input, frozen=True):
    """Either a selector or a list of targets."""

    name: TargetId
    selector: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    targets: Annotated[list[TargetId], msgspec.Meta(max_length=10_000)] = []


class FleetChange(Input, frozen=True):
    """Either a selector or a list of targets."""

    selector: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    targets: Annotated[list[TargetId], msgspec.Meta(max_length=10_000)] = []


class FleetView(Output, frozen=True):
    """A fleet and who belongs to it now."""

    name: str
    selector: str
    targets: list[str]
    created_at: datetime
    created_by: str


class FleetList(Output, frozen=True):
    """A page of fleets."""

    fleets: list[FleetView]
    next_page_token: str = ""


# ---- deployments


class Place(Input, frozen=True):
    """Which targets: exactly one of the three."""

    targets: Annotated[list[TargetId], msgspec.Meta(max_length=10_000)] = []
    fleet: Short = ""
    selector: Annotated[str, msgspec.Meta(max_length=1024)] = ""


class RuntimeSettings(Input, frozen=True):
    """How a device runs the model; zero means the device's own setting."""

    providers: Annotated[list[Short], msgspec.Meta(max_length=16)] = []
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    max_concurrent: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    load_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 120.0
    max_memory_mb: Annotated[int, msgspec.Meta(ge=64, le=2**20)] = 4096


class TrialSettings(Input, frozen=True):
    """How long a new model is on trial after the swap, and what sends it back."""

    duration_s: Annotated[float, msgspec.Meta(ge=0, le=7 * 86400)] = 0.0
    minimum_requests: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    max_error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    max_latency_ratio: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0


class DeploymentCreate(Input, frozen=True):
    """Bind a model to targets. A URI with an alias is followed unless `follow_alias` is false."""

    name: TargetId
    model_uri: Uri
    where: Place
    runtime: RuntimeSettings = RuntimeSettings()
    trial: TrialSettings = TrialSettings()
    follow_alias: bool = True
    replace: bool = False


class DeploymentChange(Input, frozen=True):
    """Move a deployment: to another model, other settings, other targets. What is absent stays."""

    model_uri: Uri | None = None
    where: Place | None = None
    runtime: RuntimeSettings | None = None
    trial: TrialSettings | None = None
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
    """One revision of a deployment. `counts` has the executions by state."""

    number: int
    model_uri: str
    model: Model
    status: str
    counts: dict[str, int]
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
    """A deployment, the executions of its present rollout and where its model comes from."""

    deployment: DeploymentView
    executions: list[ExecutionView]
    interface: documents.Interface
    lineage: dict[str, Any]


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


class PredictRequest(Input, frozen=True):
    """What to ask which of the deployment's targets (empty: any that is online). `inputs` is what
    `POST /infer` takes."""

    inputs: Any
    target: Annotated[str, msgspec.Meta(max_length=63)] = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0


class PredictResponse(Output, frozen=True):
    """The device's answer."""

    target: str
    status: int
    answer: Any


# ---- models, experiments, runs


class RunsOn(Output, frozen=True):
    """A device and its bond to a model: what it is to serve, does serve, or could fall back to."""

    target: str
    version: str
    desired: bool
    actual: bool
    fallback: bool
    status: str


class ModelVersionView(Output, frozen=True):
    """A model version with the verdict whether it can be deployed, and the devices that it is on."""

    name: str
    version: str
    run_id: str
    aliases: list[str]
    verdict: str
    verdict_message: str
    runs_on: list[RunsOn]


class ModelView(Output, frozen=True):
    """A registered model."""

    name: str
    description: str
    aliases: dict[str, str]
    runs_on: list[RunsOn]


class ModelList(Output, frozen=True):
    """A page of registered models."""

    models: list[ModelView]
    next_page_token: str = ""


class ModelDetail(Output, frozen=True):
    """A registered model and its versions, newest first."""

    model: ModelView
    versions: list[ModelVersionView]


class ExperimentView(Output, frozen=True):
    """An experiment, and how many devices run a model of one of its runs."""

    id: str
    name: str
    lifecycle_stage: str
    runs_on: list[RunsOn] = []


class ExperimentList(Output, frozen=True):
    """A page of experiments."""

    experiments: list[ExperimentView]
    next_page_token: str = ""


class RunView(Output, frozen=True):
    """A run, its data sets, and the devices that run a model which it produced."""

    id: str
    name: str
    experiment_id: str
    status: str
    user: str
    started_ms: int | None
    params: dict[str, str]
    metrics: dict[str, float | None]
    datasets: list[dict[str, str]]
    runs_on: list[RunsOn]


class RunList(Output, frozen=True):
    """A page of runs, newest first."""

    runs: list[RunView]
    next_page_token: str = ""


class RunQuery(PageQuery, frozen=True):
    """Of which experiment."""

    # The records before this one have defaults, so this one needs one too; the handler insists.
    experiment_id: Short = ""


# ---- devices


class Rotated(Output, frozen=True):
    """The new credential: shown once."""

    credential: str
