"""Health, and who may come in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from edgeflow_mlflow.api.records.common import Input, Labels, Output, Short, TargetId


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


class Rotated(Output, frozen=True):
    """The new credential: shown once."""

    credential: str
