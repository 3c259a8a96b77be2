"""The fleet at a glance, and who would get a rollout when."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from edgeflow_mlflow.api.records.common import Input, Output, PageQuery, Short
from edgeflow_mlflow.api.records.deployments import Place
from edgeflow_mlflow.domain import waves

_Selector = Annotated[str, msgspec.Meta(max_length=1024)]


class OverviewQuery(Input, frozen=True):
    """Of which targets."""

    selector: _Selector = ""


class VersionCount(Output, frozen=True):
    """How many targets serve a model version; both are empty for those that serve nothing."""

    model: str
    version: str
    targets: int


class Overview(Output, frozen=True):
    """Targets counted by flag (one target may have several) and by what they serve. `may` says what the
    caller may do: read, operate, admin."""

    targets: int
    flags: dict[str, int]
    versions: list[VersionCount]
    user: str
    may: list[str]
    at: datetime


class GlanceQuery(PageQuery, frozen=True):
    """Which targets: by labels, by one flag, by the model that they serve."""

    selector: _Selector = ""
    flag: Literal[
        "", "online", "offline", "never_seen", "stale", "failing", "drifting", "updating", "behind", "held"
    ] = ""
    model: Short = ""
    version: Short = ""


class Glance(Output, frozen=True):
    """A target in short. `step` is how its newest order stands, `reason` why it went wrong."""

    id: str
    labels: dict[str, str]
    flags: list[str]
    model: str
    version: str
    deployment: str
    step: str
    reason: str
    drift_alarms: int
    last_seen_at: datetime | None


class GlanceList(Output, frozen=True):
    """A page of targets in short."""

    targets: list[Glance]
    next_page_token: str = ""


class PreviewRequest(Input, frozen=True):
    """A rollout that nobody has begun."""

    where: Place
    waves: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=1024)]], msgspec.Meta(max_length=waves.MAX_WAVES)
    ] = []


class WavePreview(Output, frozen=True):
    """A wave as it would be. `some` names a few of its targets; who is in a wave that is a number or a share
    is drawn anew when the rollout begins, and those that are online then come first (`is_drawn`)."""

    number: int
    targets: int
    online: int
    is_drawn: bool
    some: list[str]


class Preview(Output, frozen=True):
    """Who would get it in which wave. `held` are left out, `elsewhere` belong to another deployment now."""

    targets: int
    online: int
    held: int
    elsewhere: dict[str, int]
    waves: list[WavePreview]
