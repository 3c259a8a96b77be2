"""Rollouts: how they are to go, how they go, and who decided what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from edgeflow_mlflow.api.records.common import Input, Output, PageQuery, Short
from edgeflow_mlflow.api.records.targets import ExecutionView, TargetView
from edgeflow_mlflow.domain import waves

Why = Annotated[str, msgspec.Meta(max_length=1024)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Week = Annotated[float, msgspec.Meta(ge=0, le=7 * 86400)]


class RolloutSettings(Input, frozen=True):
    """How a rollout goes. What is absent: everybody at once, halted when over a fifth of at least five fail.

    `waves` are numbers of targets, shares such as `10%` (each counts all up to its wave) or selectors such as
    `ring=canary`; whoever is left makes a last wave. `soak_s` is how long a wave is watched after its last
    device, `offline_wait_s` how long it waits for a device that does not answer. `retries` are by class:
    `transfer`, `silence`, `space`.
    """

    waves: (
        Annotated[
            list[Annotated[str, msgspec.Meta(max_length=1024)]], msgspec.Meta(max_length=waves.MAX_WAVES)
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    soak_s: _Week | msgspec.UnsetType = msgspec.UNSET
    rate_per_minute: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | msgspec.UnsetType = msgspec.UNSET
    start_at: datetime | msgspec.UnsetType = msgspec.UNSET
    window_cron: Annotated[str, msgspec.Meta(max_length=128)] | msgspec.UnsetType = msgspec.UNSET
    window_minutes: Annotated[int, msgspec.Meta(ge=1, le=7 * 1440)] | msgspec.UnsetType = msgspec.UNSET
    window_zone: Annotated[str, msgspec.Meta(max_length=64)] | msgspec.UnsetType = msgspec.UNSET
    approval: bool | msgspec.UnsetType = msgspec.UNSET
    on_failure: Literal["pause", "rollback"] | msgspec.UnsetType = msgspec.UNSET
    max_failure_rate: Rate | msgspec.UnsetType = msgspec.UNSET
    minimum_executed: Annotated[int, msgspec.Meta(ge=1, le=10**6)] | msgspec.UnsetType = msgspec.UNSET
    max_error_rate: Rate | msgspec.UnsetType | None = msgspec.UNSET
    max_latency_ratio: Annotated[float, msgspec.Meta(gt=0, le=1000)] | msgspec.UnsetType | None = (
        msgspec.UNSET
    )
    max_drift_rate: Rate | msgspec.UnsetType | None = msgspec.UNSET
    drift_gate: Literal["inputs", "outputs", "both"] | msgspec.UnsetType = msgspec.UNSET
    drift_wait_s: _Week | msgspec.UnsetType = msgspec.UNSET
    offline_wait_s: _Week | msgspec.UnsetType = msgspec.UNSET
    retries: dict[str, Annotated[int, msgspec.Meta(ge=0, le=20)]] | msgspec.UnsetType = msgspec.UNSET


class Reading(Output, frozen=True):
    """What a gate said: `verdict` is pass, wait or fail."""

    gate: str
    verdict: str
    value: float | None
    limit: float
    text: str


class WaveView(Output, frozen=True):
    """A wave and how its targets stand. `waiting` have not been given the model, `held` are left out."""

    number: int
    state: str
    targets: int
    waiting: int
    held: int
    counts: dict[str, int]
    started_at: datetime | None
    soak_until: datetime | None
    finished_at: datetime | None
    approved_by: str
    readings: list[Reading]


class RolloutProgress(Output, frozen=True):
    """A rollout wave by wave. `why` says what it waits for, or why it stopped."""

    deployment: str
    number: int
    state: str
    why: str
    model: str
    version: str
    wave: int
    waves: list[WaveView]
    settings: dict[str, Any]
    reason: str
    returns_to: int | None
    takes_back: int | None
    created_at: datetime
    created_by: str
    finished_at: datetime | None


class RolloutList(Output, frozen=True):
    """A page of rollouts, newest first."""

    rollouts: list[RolloutProgress]
    next_page_token: str = ""


class MemberView(Output, frozen=True):
    """A target's part of a rollout."""

    target: str
    wave: int
    attempts: int
    held: bool
    assigned_at: datetime | None
    execution: ExecutionView | None


class MemberList(Output, frozen=True):
    """A page of the targets of a rollout."""

    members: list[MemberView]
    next_page_token: str = ""


class MemberQuery(PageQuery, frozen=True):
    """Which of them: of one wave, or in one state of their execution (`waiting`: none yet)."""

    wave: Annotated[int, msgspec.Meta(ge=0)] = 0
    state: Short = ""


class Decide(Input, frozen=True):
    """Why it is done: it stays in the history."""

    why: Why = ""


class AbortRequest(Input, frozen=True):
    """What becomes of devices that have the new model: `keep` it, or `revert` to the version before."""

    devices: Literal["keep", "revert"] = "keep"
    why: Why = ""


class RollbackRequest(Input, frozen=True):
    """To which rollout: by its number, or the newest one before that went well."""

    to: Annotated[int, msgspec.Meta(ge=1)] | None = None
    why: Why = ""


class AuditEntry(Output, frozen=True):
    """One decision."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    target: str
    rollout: int | None
    why: str
    detail: dict[str, Any]


class AuditList(Output, frozen=True):
    """A page of decisions, newest first."""

    entries: list[AuditEntry]
    next_page_token: str = ""


class AuditQuery(PageQuery, frozen=True):
    """About which deployment, fleet or target."""

    subject: Short = ""
    target: Short = ""


class Explanation(Output, frozen=True):
    """Why a target has the model that it has: `because` in sentences, and what they rest on."""

    target: TargetView
    because: list[str]
    rollout: RolloutProgress | None
    decisions: list[AuditEntry]
