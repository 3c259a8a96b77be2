"""Alert rules: what they are, what cannot be one, and those that are there from the start."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import alert_kinds, selectors
from edgeflow_mlflow.domain.alert_kinds import Parameters

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
LONGEST = timedelta(days=7)
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,62}")
_PLACE = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")
_MOST = 16
_LONGEST_TEXT = 1024
_LONGEST_VALUE = 256
# What names the object of an alert is not a rule's to say.
RESERVED = frozenset(
    {"alertname", "kind", "severity", "target", "fleet", "deployment", "model", "version", "rollout", "scope"}
)


class Severity(enum.StrEnum):
    """How much it matters."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What to watch, where, and what to say of it. `hold` is `for`: how long it must hold; `keep` how long
    it goes on firing after that."""

    name: str
    kind: str
    parameters: Parameters
    hold: timedelta = timedelta()
    keep: timedelta = timedelta()
    severity: Severity = Severity.WARNING
    selector: str = ""
    model: str = ""
    deployment: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    enabled: bool = True


def rule(
    *,
    name: str,
    kind: str,
    parameters: Mapping[str, Any],
    hold_s: float = 0.0,
    keep_s: float = 0.0,
    severity: str = Severity.WARNING.value,
    selector: str = "",
    model: str = "",
    deployment: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    enabled: bool = True,
) -> Rule:
    """A rule that can be; raise InvalidError that says what cannot."""
    if not NAME.fullmatch(name):
        raise errors.InvalidError(
            f"{name[:80]!r} cannot name a rule: use a letter first, then letters, digits, '_', '.', '-'"
        )
    found = alert_kinds.parameters(kind, parameters)
    _check_scope(kind, found, selector=selector, deployment=deployment)
    for seconds, word in ((hold_s, "for_s"), (keep_s, "keep_firing_for_s")):
        if not 0 <= seconds <= LONGEST.total_seconds():
            raise errors.InvalidError(f"{word} lies between 0 and {LONGEST.total_seconds():.0f} seconds")
    if severity not in list(Severity):
        raise errors.InvalidError(f"severity is one of info, warning, critical, not {severity[:80]!r}")
    _check_labels(labels or {})
    _check_annotations(kind, labels or {}, annotations or {})
    return Rule(
        name=name,
        kind=kind,
        parameters=found,
        hold=timedelta(seconds=hold_s),
        keep=timedelta(seconds=keep_s),
        severity=Severity(severity),
        selector=selector,
        model=model,
        deployment=deployment,
        labels=dict(labels or {}),
        annotations=dict(annotations or {}),
        enabled=enabled,
    )


def _check_scope(kind: str, found: Parameters, *, selector: str, deployment: str) -> None:
    pooled = isinstance(found, alert_kinds.DriftParameters) and found.scope != "target"
    if selector:
        if pooled or not alert_kinds.kind(kind).takes_selector:
            raise errors.InvalidError(
                f"a selector of targets says nothing about a rule of kind {kind} that is not about targets: "
                "leave it out, or name a model or deployment"
            )
        selectors.parse(selector)
    if deployment and (pooled or kind == "fleet_offline"):
        raise errors.InvalidError(f"a rule of kind {kind} over fleets or models is not about one deployment")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > _MOST:
        raise errors.InvalidError(f"{len(labels)} labels are over the limit of {_MOST}")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or name in RESERVED:
            raise errors.InvalidError(
                f"{name[:80]!r} cannot be a label of a rule: use letters, digits and '_', and none of "
                + ", ".join(sorted(RESERVED))
            )
        if len(value) > _LONGEST_VALUE or not value.isprintable():
            raise errors.InvalidError(f"the label {name!r} is over {_LONGEST_VALUE} printable characters")


def _check_annotations(kind: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> None:
    if len(annotations) > _MOST:
        raise errors.InvalidError(f"{len(annotations)} annotations are over the limit of {_MOST}")
    known = alert_kinds.kind(kind).places | labels.keys() | {"severity", "alertname"}
    for name, text in annotations.items():
        if not _LABEL.fullmatch(name) or len(text) > _LONGEST_TEXT:
            raise errors.InvalidError(
                f"the annotation {name[:80]!r} is over {_LONGEST_TEXT} characters, or its name has others "
                "than letters, digits and '_'"
            )
        for place in _PLACE.findall(text):
            if place not in known:
                raise errors.InvalidError(
                    f"the annotation {name!r} asks for {{{place}}}; a rule of kind {kind} has "
                    + ", ".join(f"{{{item}}}" for item in sorted(known))
                )


def fill(text: str, words: Mapping[str, str]) -> str:
    """The text with its places filled; what nobody knows is left empty."""
    return _PLACE.sub(lambda found: words.get(found[1], ""), text)


def timing_words(seconds: timedelta) -> str:
    """A duration as people write it."""
    whole = int(seconds.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole and whole % size == 0:
            return f"{whole // size} {unit}"
    return f"{whole} s"


STARTER: tuple[Rule, ...] = (
    rule(
        name="TargetOffline",
        kind="target_offline",
        parameters={},
        hold_s=300,
        annotations={"summary": "{target} has not been heard since {last_seen}"},
    ),
    rule(
        name="FleetOffline",
        kind="fleet_offline",
        parameters={},
        hold_s=300,
        severity="critical",
        annotations={"summary": "{offline} of {targets} devices of fleet {fleet} are not heard"},
    ),
    rule(
        name="WrongVersion",
        kind="wrong_version",
        parameters={},
        hold_s=300,
        annotations={"summary": "{target} does not serve {wanted}, which it had reported to have installed"},
    ),
    rule(
        name="RolloutStopped",
        kind="rollout_stopped",
        parameters={},
        severity="critical",
        annotations={"summary": "rollout {rollout} of {deployment} is {state}: {why}"},
    ),
    rule(
        name="ErrorRate",
        kind="error_rate",
        parameters={},
        hold_s=60,
        severity="critical",
        annotations={"summary": "{value} of the requests to {model}/{version} on {target} fail"},
    ),
    rule(
        name="Latency",
        kind="latency",
        parameters={},
        hold_s=300,
        annotations={"summary": "{target} takes {value} for the slowest requests to {model}/{version}"},
    ),
    rule(
        name="QueueFull",
        kind="queue_full",
        parameters={},
        hold_s=60,
        annotations={"summary": "{target} turns {value} of the requests away: its queue is full"},
    ),
    rule(
        name="TargetDrift",
        kind="drift",
        parameters={"scope": "target"},
        # A verdict already wants several windows that agree; after it, one good window is no return.
        keep_s=60,
        annotations={
            "summary": "what {model}/{version} sees or says on {target} has drifted: {features}",
            "description": "{signal}",
        },
    ),
    rule(
        name="FleetDrift",
        kind="drift",
        parameters={"scope": "fleet"},
        keep_s=60,
        annotations={
            "summary": "what {model}/{version} sees or says in fleet {fleet} has drifted: {features}",
            "description": "{signal}",
        },
    ),
    rule(
        name="ModelDrift",
        kind="drift",
        parameters={"scope": "model"},
        keep_s=60,
        annotations={
            "summary": "what {model}/{version} sees or says on all its devices has drifted: {features}",
            "description": "{signal}",
        },
    ),
    rule(
        name="DiskLow",
        kind="disk_low",
        parameters={},
        hold_s=300,
        annotations={"summary": "{value} of the disk of {target} is free ({free_mb} MB)"},
    ),
    rule(
        name="TemperatureHigh",
        kind="temperature_high",
        parameters={},
        hold_s=300,
        annotations={"summary": "{target} is at {value}"},
    ),
    rule(
        name="TelemetryDropped",
        kind="telemetry_dropped",
        parameters={},
        severity="info",
        annotations={"summary": "{target} has lost {value} windows of telemetry in {minutes} minutes"},
    ),
    rule(
        name="TelemetryMissing",
        kind="telemetry_missing",
        parameters={},
        hold_s=60,
        annotations={"summary": "{target} is there, but has sent no telemetry for {minutes} minutes"},
    ),
)
STARTERS = {item.name: item for item in STARTER}
