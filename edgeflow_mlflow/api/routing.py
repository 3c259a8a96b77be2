"""What a route is. One table of these is the API: its handlers, its policies and its OpenAPI document."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgeflow_mlflow.catalog import Catalog
from edgeflow_mlflow.services.state import State

# Where the API begins, after the server's own static prefix.
PREFIX = "/api/v1"


class Policy(enum.StrEnum):
    """Who may use a route."""

    PUBLIC = "public"  # anybody who reaches the server
    DEVICE = "device"  # an enrolled device, by its credential
    READ = "read"  # any user
    OPERATE = "operate"  # a user who may deploy
    ADMIN = "admin"  # an administrator


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who asks. `target` is set for a device; `name` is what history shows."""

    name: str = "anonymous"
    target: str = ""
    may: frozenset[Policy] = frozenset()
    credential: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, checked and parsed."""

    state: State
    catalog: Catalog
    # Who may see what of MLflow: an experiment id or a registered model's name -> whether.
    sees_experiment: Callable[[str], bool]
    sees_model: Callable[[str], bool]
    actor: Actor
    prefix: str  # the static prefix and the API's own
    path: dict[str, str]
    query: Any = None
    body: Any = None
    headers: Any = None


@dataclass(frozen=True, kw_only=True)
class Raw:
    """An answer that is not JSON, or not 200."""

    body: bytes = b""
    status: int = 200
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    # A file to send instead of `body`; the server in front streams it.
    file: str = ""
    etag: str = ""


Handler = Callable[[Call], Any]


@dataclass(frozen=True, kw_only=True)
class Route:
    """One operation. `body`, `query` and `answer` are msgspec types; `errors` the statuses besides 400."""

    method: str
    rule: str
    policy: Policy
    handler: Handler
    summary: str
    body: Any = None
    query: Any = None
    answer: Any = None
    media_type: str = "application/json"
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    errors: tuple[int, ...] = ()
