"""Alerts: what fires, the rules, silences, and who is told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from edgeflow_mlflow.api.records.common import Input, Label, Output, PageQuery, Short

Severity = Literal["info", "warning", "critical"]
Matchers = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=512)]], msgspec.Meta(max_length=20)
]
Secret = Annotated[str, msgspec.Meta(max_length=1024)]
Comment = Annotated[str, msgspec.Meta(max_length=1024)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=7 * 86400)]
_Texts = dict[Annotated[str, msgspec.Meta(max_length=63)], Annotated[str, msgspec.Meta(max_length=1024)]]
_Words = dict[Annotated[str, msgspec.Meta(max_length=63)], Label]
_Names = tuple[Annotated[str, msgspec.Meta(max_length=63)], ...]


class AlertQuery(PageQuery, frozen=True):
    """Which alerts. Without `phase`: those that are pending or fire."""

    phase: Literal["", "pending", "firing", "resolved", "all"] = ""
    severity: Literal["", "info", "warning", "critical"] = ""
    rule: Short = ""
    target: Short = ""


class AlertView(Output, frozen=True):
    """One episode of an alert. `silenced_by` names silences; `inhibited` says that another alert speaks for
    it; `receivers` are those it goes to."""

    id: int
    fingerprint: str
    rule: str
    severity: str
    phase: str
    target: str
    labels: dict[str, str]
    annotations: dict[str, str]
    active_at: datetime | None
    fired_at: datetime | None
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str
    acknowledged_why: str
    silenced_by: list[str]
    inhibited: bool
    receivers: list[str]


class AlertList(Output, frozen=True):
    """A page of alerts, the newest first."""

    alerts: list[AlertView]
    next_page_token: str = ""


class RulePut(Input, frozen=True):
    """A rule, whole. `for_s` is how long it must hold, `keep_firing_for_s` how long it goes on firing after
    that. Annotations hold places such as `{target}`."""

    kind: Short
    parameters: dict[str, Any] = {}
    for_s: _Seconds = 0.0
    keep_firing_for_s: _Seconds = 0.0
    severity: Severity = "warning"
    selector: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    model: Short = ""
    deployment: Short = ""
    labels: _Words = {}
    annotations: _Texts = {}
    enabled: bool = True


class RuleView(Output, frozen=True):
    """A rule. `origin` is `starter`, `changed` (a starter rule that somebody changed) or `own`; `firing` and
    `pending` count its alerts."""

    name: str
    origin: str
    kind: str
    parameters: dict[str, Any]
    for_s: float
    keep_firing_for_s: float
    severity: str
    selector: str
    model: str
    deployment: str
    labels: dict[str, str]
    annotations: dict[str, str]
    enabled: bool
    firing: int = 0
    pending: int = 0


class RuleList(Output, frozen=True):
    """All rules."""

    rules: list[RuleView]


class RuleTrial(Output, frozen=True):
    """How often a rule would have fired from `since` on, on how many objects; unless the past does not tell,
    and `text` says why."""

    can_tell: bool
    since: datetime
    times: int = 0
    objects: int = 0
    last_at: datetime | None = None
    text: str = ""


class SilenceCreate(Input, frozen=True):
    """Which alerts nobody is told of, and until when: `ends_at`, or so many seconds from now."""

    matchers: Matchers
    duration_s: Annotated[float, msgspec.Meta(gt=0, le=366 * 86400)] | None = None
    starts_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    ends_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    comment: Comment = ""


class SilenceView(Output, frozen=True):
    """A silence. `state` is `pending`, `active` or `expired`."""

    id: str
    state: str
    matchers: list[str]
    starts_at: datetime
    ends_at: datetime
    comment: str
    created_at: datetime
    created_by: str


class SilenceQuery(PageQuery, frozen=True):
    """With those that have ended."""

    expired: bool = False


class SilenceList(Output, frozen=True):
    """A page of silences."""

    silences: list[SilenceView]
    next_page_token: str = ""


class MailSettings(Input, frozen=True):
    """How mails are sent. Port 0 is the usual one of `tls`: 587, 465 or 25."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    sender: Annotated[str, msgspec.Meta(min_length=3, max_length=254)]
    to: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=254)]], msgspec.Meta(min_length=1, max_length=50)
    ]
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    tls: Literal["starttls", "tls", "none"] = "starttls"
    username: Short = ""


class ReceiverPut(Input, frozen=True):
    """A receiver, whole, but for what is secret: `url`, `secret` and `password` stay what they were when they
    are left out. All `matchers` must hold; a default receiver gets what no other one takes."""

    kind: Literal["webhook", "slack", "email", "alertmanager"]
    url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None
    secret: Secret | None = None
    mail: MailSettings | None = None
    password: Secret | None = None
    matchers: Matchers = []
    default: bool = False
    group_by: Annotated[_Names, msgspec.Meta(max_length=10)] = ("alertname",)
    group_wait_s: _Seconds = 30.0
    group_interval_s: Annotated[float, msgspec.Meta(ge=1, le=7 * 86400)] = 300.0
    repeat_interval_s: Annotated[float, msgspec.Meta(ge=10, le=366 * 86400)] = 14400.0
    send_resolved: bool = True


class ReceiverView(Output, frozen=True):
    """A receiver without its secrets: of its URL only where it is. `waiting` counts notifications on their
    way, `last_error` is why the newest one is not there yet."""

    name: str
    kind: str
    address: str
    mail: dict[str, Any]
    has_secret: bool
    matchers: list[str]
    default: bool
    group_by: list[str]
    group_wait_s: float
    group_interval_s: float
    repeat_interval_s: float
    send_resolved: bool
    updated_at: datetime
    updated_by: str
    waiting: int
    last_error: str


class ReceiverList(Output, frozen=True):
    """All receivers."""

    receivers: list[ReceiverView]


class DeliveryView(Output, frozen=True):
    """A notification. `state` is `waiting`, `sent` or `given_up`."""

    delivery_id: str
    reason: str
    title: str
    state: str
    attempts: int
    error: str
    created_at: datetime
    next_at: datetime
    ended_at: datetime | None


class DeliveryList(Output, frozen=True):
    """A page of notifications, the newest first."""

    deliveries: list[DeliveryView]
    next_page_token: str = ""


class TrialResult(Output, frozen=True):
    """What came back: the receiver's status (0: it did not answer) and its first words."""

    delivered: bool
    status: int
    text: str
