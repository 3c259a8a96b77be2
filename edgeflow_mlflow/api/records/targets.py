"""Targets, fleets, and what happens on them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from edgeflow_mlflow.api.records.common import Input, Labels, Output, PageQuery, Short, TargetId


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
    # Since when, by whom and why it is left out of rollouts.
    held_at: datetime | None
    held_by: str
    hold_reason: str
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
