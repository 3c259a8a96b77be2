"""How a rollout is to go: from the settings that were given to the plan that the planner reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import retries, schedule, waves
from edgeflow_mlflow.domain.gates import Limits
from edgeflow_mlflow.domain.rollouts import OnFailure, Plan

GROUP = "rollout"
# A setting of one rollout: the next one of the same deployment does not begin at the same moment.
ONCE = frozenset({"start_at"})
_OFFLINE_WAIT_S = 600.0
_DRIFT_WAIT_S = 3600.0
_DRIFT_KINDS = {"inputs": ("input",), "outputs": ("output",), "both": ("input", "output")}


def check(groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InvalidError when the settings of a rollout make no sense."""
    settings, trial = groups.get(GROUP, {}), groups.get("trial", {})
    watched = settings.get("max_error_rate") is not None or settings.get("max_latency_ratio") is not None
    if watched and not (trial.get("minimum_requests") or trial.get("duration_s")):
        raise errors.InvalidError(
            "a gate on errors or latency reads what the trials have seen, and there are none: say how long a "
            "trial lasts, with trial_requests or trial_seconds"
        )
    waves.parse(settings.get("waves", ()))
    plan(settings)
    for name, times in retry(settings).items():
        if name not in retries.CLASSES:
            known = ", ".join(retries.CLASSES)
            raise errors.InvalidError(f"there are no retries for {name!r}; known are {known}")
        if not 0 <= times <= retries.MOST:
            raise errors.InvalidError(f"retries for {name!r}: 0 to {retries.MOST}, not {times}")


def plan(settings: Mapping[str, Any]) -> Plan:
    """The plan; raise InvalidError for a window that cannot be."""
    window = None
    if settings.get("window_cron"):
        window = schedule.window(
            settings["window_cron"],
            int(settings.get("window_minutes", 60)),
            settings.get("window_zone") or "UTC",
        )
    elif settings.get("window_minutes") or settings.get("window_zone"):
        raise errors.InvalidError("a maintenance window needs window_cron, for example '0 2 * * *'")
    return Plan(
        soak=timedelta(seconds=settings.get("soak_s", 0.0)),
        rate_per_minute=settings.get("rate_per_minute", 0.0),
        start_at=_moment(settings.get("start_at")),
        window=window,
        approval=settings.get("approval", False),
        on_failure=OnFailure(settings.get("on_failure", OnFailure.PAUSE)),
        limits=Limits(
            max_failure_rate=settings.get("max_failure_rate", Limits.max_failure_rate),
            minimum_executed=settings.get("minimum_executed", Limits.minimum_executed),
            max_error_rate=settings.get("max_error_rate"),
            max_latency_ratio=settings.get("max_latency_ratio"),
            max_drift_rate=settings.get("max_drift_rate"),
        ),
    )


def retry(settings: Mapping[str, Any]) -> dict[str, int]:
    """How often a target may try again, by class of what went wrong."""
    return {**retries.DEFAULT, **settings.get("retries", {})}


def drift_kinds(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Which features the gate on drift looks at."""
    return _DRIFT_KINDS[settings.get("drift_gate", "both")]


def drift_wait(settings: Mapping[str, Any]) -> timedelta:
    """How long the gate on drift waits for telemetry of the last device of a wave."""
    return timedelta(seconds=settings.get("drift_wait_s", _DRIFT_WAIT_S))


def offline_wait(settings: Mapping[str, Any]) -> timedelta:
    """How long a wave waits for a device that has not answered to its offer."""
    return timedelta(seconds=settings.get("offline_wait_s", _OFFLINE_WAIT_S))


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
