"""Recalls: a data set was found bad."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from edgeflow_mlflow.api.records.common import Input, Output, PageQuery, Short, Uri
from edgeflow_mlflow.api.records.tracing import DatasetView, ReachedVersion, ServedView

Why = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class RecallPlanRequest(Input, frozen=True):
    """A data set by any of these, in all experiments. `any_use` also counts models that were only tested with
    it. `go_to` names model URIs by model name, where the newest clean version is not what is wanted."""

    name: Annotated[str, msgspec.Meta(max_length=512)] = ""
    digest: Short = ""
    content: Short = ""
    dataset: Short = ""
    any_use: bool = False
    go_to: dict[Short, Uri] = {}


class RecallCreate(RecallPlanRequest, frozen=True, kw_only=True):
    """The same, carried out."""

    why: Why


class RecallLift(Input, frozen=True):
    """Why a recall ends."""

    why: Short = ""


class Alternative(Output, frozen=True):
    """What devices of a model go to; `uri` is empty when there is no clean version."""

    model: str
    uri: str


class PlannedDevice(Output, frozen=True):
    """A device that a data set has reached. `bonds` are serves, wanted, fallback; `remedy` is roll_out,
    follows, clear_fallback, hold or unmanaged."""

    target: str
    deployment: str
    model: str
    version: str
    bonds: list[str]
    remedy: str
    goes_to: str
    status: str


class RecallPlan(Output, frozen=True):
    """What a recall would do, or what it found when it began."""

    datasets: list[DatasetView]
    versions: list[ReachedVersion]
    alternatives: list[Alternative]
    devices: list[PlannedDevice]
    counts: dict[str, int]


class RecallView(Output, frozen=True):
    """A recall and how far it is: `counts` by status, `done` when every device that is there is corrected."""

    id: str
    why: str
    datasets: list[str]
    any_use: bool
    created_at: datetime
    created_by: str
    lifted_at: datetime | None
    lifted_by: str
    lift_why: str
    counts: dict[str, int]
    done: bool


class RecallList(Output, frozen=True):
    """A page of recalls, the newest first."""

    recalls: list[RecallView]
    next_page_token: str = ""


class RecallDevice(Output, frozen=True):
    """A device of a recall: what was decided, and how it is now. `status` is corrected, under_way, offline,
    held, unmanaged, failed or gone."""

    target: str
    deployment: str
    model: str
    version: str
    bonds: list[str]
    remedy: str
    goes_to: str
    status: str
    error: str
    serves: str  # the digest
    serves_name: str  # name/version, empty when this server never published it
    corrected_at: datetime | None
    last_seen_at: datetime | None


class RecallDetail(Output, frozen=True):
    """A recall with every device of it."""

    recall: RecallView
    versions: list[ReachedVersion]
    devices: list[RecallDevice]


class EvidenceOfDevice(Output, frozen=True):
    """What a device served since the recall began, and what ended just then."""

    target: str
    served: list[ServedView]


class Decision(Output, frozen=True):
    """An entry of the log of decisions."""

    at: datetime
    actor: str
    action: str
    subject: str
    rollout: int | None
    target: str
    why: str


class RecallReport(Output, frozen=True):
    """Evidence: the recall, every device, what each served, and every decision."""

    made_at: datetime
    fleet: str
    detail: RecallDetail
    served: list[EvidenceOfDevice]
    decisions: list[Decision]


class RecallQuery(PageQuery, frozen=True):
    """Which recalls; `standing` leaves out those that were lifted."""

    standing: bool = False


class RecallReportQuery(Input, frozen=True):
    """As JSON, or as a page that can be printed."""

    format: Annotated[str, msgspec.Meta(pattern="^(json|html)$")] = "json"
