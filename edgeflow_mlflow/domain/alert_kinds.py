"""The kinds of alert rules: their parameters, and what an alert of each can say."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from edgeflow_agent import typed
from edgeflow_mlflow import errors

Minutes = Annotated[int, msgspec.Meta(ge=1, le=1440)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Least = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Per = Literal["target", "deployment", "model"]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes a rule of a kind this rule."""


class Nothing(Parameters, frozen=True):
    """There is nothing to set."""


class DriftParameters(Parameters, frozen=True):
    """`of` one device, of a fleet or of all devices of a model version together; `feature`: only this one."""

    scope: Literal["target", "fleet", "model"] = "target"
    of: Literal["inputs", "outputs", "both"] = "both"
    feature: Annotated[str, msgspec.Meta(max_length=256)] = ""


class ErrorRateParameters(Parameters, frozen=True):
    """Requests that the model or the device failed, as a share of all."""

    above: Share = 0.05
    minutes: Minutes = 5
    min_requests: Least = 50
    per: Per = "target"


class LatencyParameters(Parameters, frozen=True):
    """A quantile of the time to an answer."""

    quantile: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.99
    # Beyond ten seconds the devices do not tell apart.
    above_s: Annotated[float, msgspec.Meta(gt=0, lt=10)] = 1.0
    minutes: Minutes = 5
    min_requests: Least = 50
    per: Per = "target"


class ThroughputParameters(Parameters, frozen=True):
    """Requests a second; at least one of the two limits."""

    below_per_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    above_per_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    minutes: Minutes = 10
    per: Per = "deployment"

    def __post_init__(self) -> None:
        if self.below_per_s is None and self.above_per_s is None:
            raise ValueError("give below_per_s or above_per_s")


class FleetOfflineParameters(Parameters, frozen=True):
    """So large a share of a fleet of so many at least."""

    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    min_targets: Annotated[int, msgspec.Meta(ge=2, le=10**6)] = 3


class RolloutParameters(Parameters, frozen=True):
    """How long a rollout that failed is news."""

    minutes: Minutes = 60


class QueueParameters(Parameters, frozen=True):
    """Requests that found the queue full, as a share of all."""

    above: Share = 0.01
    minutes: Minutes = 5
    min_requests: Least = 20


class DiskParameters(Parameters, frozen=True):
    """Free space where the agent keeps its state."""

    below_ratio: Share = 0.05
    below_mb: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0


class TemperatureParameters(Parameters, frozen=True):
    """The hottest sensor."""

    above_c: Annotated[float, msgspec.Meta(ge=-100, le=1000)] = 85.0


class DroppedParameters(Parameters, frozen=True):
    """Windows that a device had no room to keep."""

    above: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    minutes: Minutes = 30


class MissingParameters(Parameters, frozen=True):
    """For how long."""

    minutes: Minutes = 15


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind: what it watches, its parameters, the labels and words of its alerts, and whether a selector
    says something about it."""

    what: str
    parameters: type[Parameters]
    places: frozenset[str]
    takes_selector: bool = True


_OF_TARGET = frozenset({"target", "fleet", "deployment", "model", "version"})
_OF_LOAD = frozenset(
    {"target", "fleet", "deployment", "model", "version", "value", "limit", "requests", "minutes"}
)

KINDS: dict[str, Kind] = {
    "drift": Kind(
        what="inputs or outputs are not what they were in training",
        parameters=DriftParameters,
        places=frozenset({"target", "fleet", "model", "version", "scope", "value", "features", "signal"}),
    ),
    "error_rate": Kind(
        what="requests fail",
        parameters=ErrorRateParameters,
        places=_OF_LOAD,
    ),
    "latency": Kind(
        what="answers take long",
        parameters=LatencyParameters,
        places=_OF_LOAD | {"quantile"},
    ),
    "throughput": Kind(
        what="too few or too many requests",
        parameters=ThroughputParameters,
        places=_OF_LOAD,
    ),
    "target_offline": Kind(
        what="a device is not heard",
        parameters=Nothing,
        places=_OF_TARGET | {"last_seen"},
    ),
    "fleet_offline": Kind(
        what="much of a fleet is not heard",
        parameters=FleetOfflineParameters,
        places=frozenset({"fleet", "value", "limit", "offline", "targets"}),
    ),
    "wrong_version": Kind(
        what="a device serves something else than it reported to have installed",
        parameters=Nothing,
        places=_OF_TARGET | {"wanted"},
    ),
    "rollout_stopped": Kind(
        what="a gate paused a rollout, or it failed",
        parameters=RolloutParameters,
        places=frozenset({"deployment", "rollout", "model", "version", "state", "why"}),
        takes_selector=False,
    ),
    "queue_full": Kind(
        what="requests find the queue full",
        parameters=QueueParameters,
        places=_OF_LOAD,
    ),
    "disk_low": Kind(
        what="the disk of a device is nearly full",
        parameters=DiskParameters,
        places=_OF_TARGET | {"value", "limit", "free_mb"},
    ),
    "temperature_high": Kind(
        what="a device is hot",
        parameters=TemperatureParameters,
        places=_OF_TARGET | {"value", "limit"},
    ),
    "telemetry_dropped": Kind(
        what="a device lost windows of telemetry",
        parameters=DroppedParameters,
        places=_OF_TARGET | {"value", "limit", "minutes"},
    ),
    "telemetry_missing": Kind(
        what="a device that is there sends no telemetry any more",
        parameters=MissingParameters,
        places=_OF_TARGET | {"minutes"},
    ),
}


def kind(name: str) -> Kind:
    """A kind by its name; raise InvalidError that names the nearest."""
    found = KINDS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(KINDS))}"
        raise errors.InvalidError(f"there is no kind of rule {name[:80]!r}; {hint}")
    return found


def parameters(name: str, given: Mapping[str, Any]) -> Parameters:
    """The parameters of a rule of that kind, checked; raise InvalidError that says what does not fit."""
    wanted = kind(name).parameters
    known = wanted.__struct_fields__
    for word in given:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'none'}"
            raise errors.InvalidError(f"a rule of kind {name} has no parameter {word[:80]!r}; {hint}")
    try:
        return typed.convert(wanted, dict(given))
    except (msgspec.ValidationError, OverflowError) as error:
        raise errors.InvalidError(f"the parameters of a rule of kind {name} do not fit: {error}") from error
