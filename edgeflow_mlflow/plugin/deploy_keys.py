"""The keys of `-C key=value`: what each is called, how it is read, and what it does."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeflow_mlflow.client import ApiError
from edgeflow_mlflow.domain import waves


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _flag(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return known[text.strip().lower()]


def _retries(text: str) -> dict[str, int]:
    pairs = [word.partition(":") for word in _words(text)]
    return {name.strip(): int(times) for name, _, times in pairs}


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key. `group` is the part of the request that it belongs to."""

    name: str
    group: str
    field: str
    read: Callable[[str], Any]
    wants: str
    text: str


def _key(name: str, group: str, field: str, read: Callable[[str], Any], wants: str, text: str) -> Key:
    return Key(name=name, group=group, field=field, read=read, wants=wants, text=text)


KEYS: tuple[Key, ...] = (
    _key("target", "where", "targets", lambda text: [text.strip()], "a target id", "deploy to this one device"),
    _key("targets", "where", "targets", _words, "target ids with commas", "deploy to these devices"),
    _key("fleet", "where", "fleet", str.strip, "a fleet's name", "deploy to a fleet; the same as --endpoint"),
    _key("selector", "where", "selector", str.strip, "labels, as site=lyon,arm!=left", "deploy to every device whose labels match"),
    _key("replace", "request", "replace", _flag, "true or false", "take devices over from another deployment (default false)"),
    _key("follow_alias", "request", "follow_alias", _flag, "true or false", "with models:/name@alias: move when the alias moves (default true)"),
    _key("reason", "request", "reason", str.strip, "text", "why, for the history (update only)"),
    _key("wait", "client", "wait", float, "seconds", "wait until every device has ended (delete: has let go), and fail if one failed (default 0)"),
    _key("keep_serving", "client", "keep_serving", _flag, "true or false", "delete only: devices keep serving what they have (default false)"),
    _key("trial_seconds", "trial", "duration_s", float, "seconds", "how long a new model is on trial after the swap (default 0)"),
    _key("trial_requests", "trial", "minimum_requests", int, "a number", "how many requests the trial needs (default 0)"),
    _key("max_error_rate", "trial", "max_error_rate", float, "a share from 0 to 1", "errors in the trial beyond which the device goes back (default 0.1)"),
    _key("max_latency_ratio", "trial", "max_latency_ratio", float, "a ratio", "mean latency against the version before, beyond which the device goes back (default 0: not watched)"),
    _key("waves", "rollout", "waves", waves.split, "waves as 1,10%,50%,100%; with ; between them where labels have commas", "who goes when: numbers and shares count all targets up to their wave, labels (ring=canary) take theirs (default: everybody at once)"),
    _key("soak", "rollout", "soak_s", float, "seconds", "how long a wave is watched after its last device (default 0)"),
    _key("rate", "rollout", "rate_per_minute", float, "a number", "so many targets a minute at most (default 0: no limit)"),
    _key("start_at", "rollout", "start_at", str.strip, "a moment as 2026-12-24T02:00:00+01:00", "not before; for this rollout only"),
    _key("window", "rollout", "window_cron", str.strip, "a schedule as cron writes it, '0 2 * * 1-5'", "begin with devices only from these moments on …"),
    _key("window_minutes", "rollout", "window_minutes", int, "minutes", "… for so long (default 60)"),
    _key("window_zone", "rollout", "window_zone", str.strip, "a time zone as Europe/Paris", "whose clock the window goes by (default UTC)"),
    _key("approval", "rollout", "approval", _flag, "true or false", "each next wave waits for `edgeflow rollouts approve` (default false)"),
    _key("on_failure", "rollout", "on_failure", str.strip, "pause or rollback", "what a failed gate leads to (default pause)"),
    _key("max_failure_rate", "rollout", "max_failure_rate", float, "a share from 0 to 1", "failed devices of those that came to an end, beyond which a wave has failed (default 0.2)"),
    _key("min_executed", "rollout", "minimum_executed", int, "a number", "so many ends before there is a verdict, or all of the wave (default 5)"),
    _key("gate_error_rate", "rollout", "max_error_rate", float, "a share from 0 to 1", "errors in all trials of a wave, beyond which it has failed (default: not looked at)"),
    _key("gate_latency_ratio", "rollout", "max_latency_ratio", float, "a ratio", "run time in the trials of a wave against the version before, beyond which it has failed (default: not looked at)"),
    _key("max_drift_rate", "rollout", "max_drift_rate", float, "a share from 0 to 1", "devices of a wave with a drift alarm, of those that were judged, beyond which it has failed (default: not looked at)"),
    _key("drift_gate", "rollout", "drift_gate", str.strip, "inputs, outputs or both", "whose drift counts for max_drift_rate (default both)"),
    _key("drift_wait", "rollout", "drift_wait_s", float, "seconds", "how long a wave waits for telemetry of its last device (default 3600)"),
    _key("offline_wait", "rollout", "offline_wait_s", float, "seconds", "how long a wave waits for a device that does not answer (default 600)"),
    _key("retries", "rollout", "retries", _retries, "tries by class as transfer:3,silence:1,space:0", "how often a device tries again after an end of this class (these are the defaults)"),
    _key("providers", "runtime", "providers", _words, "execution providers with commas", "in order of preference (default: the device's own)"),
    _key("threads", "runtime", "threads", int, "a number", "threads inside one inference (default 0: the device's own)"),
    _key("max_concurrent", "runtime", "max_concurrent", int, "a number", "inferences at once (default 0: the device's own)"),
    _key("load_timeout", "runtime", "load_timeout_s", float, "seconds", "how long the trial load may take (default 120)"),
    _key("max_memory_mb", "runtime", "max_memory_mb", int, "MiB", "how much memory the trial load may take (default 4096)"),
    _key("window_seconds", "monitor", "window_s", float, "seconds", "how long a window of telemetry is (default 60)"),
    _key("capture_rate", "monitor", "capture_rate", float, "a share from 0 to 1", "requests that each device keeps whole, to be fetched with `edgeflow targets captures` (default 0)"),
)  # fmt: skip
_BY_NAME = {key.name: key for key in KEYS}
_FOR_CREATE = frozenset(_BY_NAME) - {"reason", "keep_serving"}
_FOR_UPDATE = frozenset(_BY_NAME) - {"keep_serving"}
_FOR_DELETE = frozenset({"keep_serving", "wait"})
ALLOWED = {"create": _FOR_CREATE, "update": _FOR_UPDATE, "delete": _FOR_DELETE}


def read(config: Mapping[str, Any] | None, verb: str) -> dict[str, dict[str, Any]]:
    """Sort and convert the keys of a command by group; ApiError names what is wrong and what is close."""
    groups: dict[str, dict[str, Any]] = {
        "where": {},
        "request": {},
        "client": {},
        "trial": {},
        "runtime": {},
        "monitor": {},
        "rollout": {},
    }
    for name, value in (config or {}).items():
        if name not in ALLOWED[verb]:
            near = difflib.get_close_matches(name, ALLOWED[verb], n=1)
            hint = (
                f"did you mean -C {near[0]}=…?"
                if near
                else "`mlflow deployments help -t edgeflow` explains all"
            )
            raise ApiError(f"-C {name} is unknown for {verb}: {hint}", error_code="INVALID_PARAMETER_VALUE")
        key = _BY_NAME[name]
        try:
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            groups[key.group][key.field] = key.read(text)
        except (ValueError, KeyError) as error:
            raise ApiError(
                f"-C {name} wants {key.wants}, not {value!r}", error_code="INVALID_PARAMETER_VALUE"
            ) from error
    return groups


def explain() -> str:
    """Every key with what it wants and does."""
    width = max(len(key.name) for key in KEYS)
    return "\n".join(f"  {key.name:<{width}}  {key.wants}: {key.text}" for key in KEYS)
