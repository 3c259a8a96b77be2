"""What `/metrics` says: counts over the whole fleet, so that its size does not grow with the fleet's; and
what `/metrics/devices` says of each device."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import selectors
from edgeflow_mlflow.domain.alert_rules import Severity
from edgeflow_mlflow.domain.alerts import Phase
from edgeflow_mlflow.domain.exposition import Metric
from edgeflow_mlflow.services import counters, lease
from edgeflow_mlflow.services.state import State

_NO_FLEET = ""


def fleet_wide(state: State) -> list[Metric]:
    """The metrics with bounded labels."""
    holder = lease.current(state)
    with state.database.read() as session:
        lag = counters.lag_seconds(session, state.now())
        return [
            Metric(
                name="edgeflow_hub_up",
                kind="gauge",
                text="Whether a hub runs.",
                samples=[({}, 0 if holder is None else 1)],
            ),
            Metric(
                name="edgeflow_mqtt_clients",
                kind="gauge",
                text="Devices that are connected to the broker.",
                samples=[({}, 0 if holder is None else int(holder.detail.get("mqtt_connected", 0)))],
            ),
            Metric(
                name="edgeflow_devices",
                kind="gauge",
                text="Devices by fleet and state: in each of their fleets, or in the empty one.",
                samples=_devices(state, session),
            ),
            Metric(
                name="edgeflow_rollout_targets",
                kind="gauge",
                text="Targets of each deployment's newest rollout by state.",
                samples=_rollout_targets(session),
            ),
            Metric(
                name="edgeflow_deployments_total",
                kind="counter",
                text="Executions that came to an end, by result and reason.",
                samples=_ended(session),
            ),
            Metric(
                name="edgeflow_alerts_firing",
                kind="gauge",
                text="Alerts that fire, silenced or not.",
                samples=_firing(session),
            ),
            Metric(
                name="edgeflow_webhook_deliveries_total",
                kind="counter",
                text="Tries to notify a receiver by outcome.",
                samples=_deliveries(session),
            ),
            Metric(
                name="edgeflow_telemetry_windows_total",
                kind="counter",
                text="Windows of telemetry that were stored.",
                samples=list(counters.read(session, counters.WINDOWS)) or [({}, 0)],
            ),
            Metric(
                name="edgeflow_telemetry_lag_seconds",
                kind="gauge",
                text="How old windows of the last five minutes were at most when they came.",
                samples=[] if lag is None else [({}, lag)],
            ),
            Metric(
                name="edgeflow_inference_requests_total",
                kind="counter",
                text="Inference requests by model version, as devices told them.",
                samples=counters.read(session, counters.REQUESTS),
            ),
            Metric(
                name="edgeflow_inference_failed_requests_total",
                kind="counter",
                text="Those of them that the model or the device failed.",
                samples=counters.read(session, counters.FAILED),
            ),
            Metric(
                name="edgeflow_drift_features",
                kind="gauge",
                text="Features of devices by their newest verdict; alarm: several agree on drift.",
                samples=_drift(session),
            ),
        ]


def _devices(state: State, session: Session) -> list[tuple[dict[str, str], float]]:
    fleets = session.scalars(select(models.Fleet)).all()
    parts = {row.name: selectors.parse(row.selector) for row in fleets if row.selector}
    lists = {row.name: set(row.targets) for row in fleets if not row.selector}
    counts: Counter[tuple[str, str]] = Counter()
    for name, labels, said, seen in session.execute(
        select(models.Target.id, models.Target.labels, models.Target.presence, models.Target.last_seen_at)
    ):
        status = "never_seen" if seen is None else "online" if state.is_online(seen) else "offline"
        known = selectors.known(labels, said)
        members = [fleet for fleet, ids in lists.items() if name in ids]
        members += [fleet for fleet, wanted in parts.items() if selectors.matches(wanted, known)]
        for fleet in members or [_NO_FLEET]:
            counts[fleet, status] += 1
    # A state that nobody is in is a zero, not an absence.
    names = [_NO_FLEET, *lists, *parts]
    return [
        ({"fleet": fleet, "state": status}, counts[fleet, status])
        for fleet in names
        for status in ("online", "offline", "never_seen")
    ]


def _rollout_targets(session: Session) -> list[tuple[dict[str, str], float]]:
    member, execution, rollout = models.RolloutMember, models.Execution, models.Rollout
    state = case((execution.state.is_(None), "waiting"), else_=execution.state)
    rows = session.execute(
        select(models.Deployment.name, rollout.number, state, func.count())
        .join(rollout, rollout.id == models.Deployment.rollout_id)
        .join(member, member.rollout_id == rollout.id)
        .outerjoin(execution, execution.id == member.execution_id)
        .where(models.Deployment.live_name.is_not(None))
        .group_by(models.Deployment.name, rollout.number, state)
    )
    return [({"rollout": f"{name}/{number}", "state": word}, count) for name, number, word, count in rows]


def _ended(session: Session) -> list[tuple[dict[str, str], float]]:
    execution = models.Execution
    rows = session.execute(
        select(execution.state, execution.reason, func.count())
        .where(execution.finished_at.is_not(None))
        .group_by(execution.state, execution.reason)
    )
    return [({"result": state, "reason": reason}, count) for state, reason, count in rows]


def _firing(session: Session) -> list[tuple[dict[str, str], float]]:
    alert = models.Alert
    rows = session.execute(
        select(alert.severity, func.count()).where(alert.phase == Phase.FIRING.value).group_by(alert.severity)
    )
    found = {severity: count for severity, count in rows}  # noqa: C416 - rows are no pairs for mypy
    return [({"severity": item.value}, found.get(item.value, 0)) for item in Severity]


def _deliveries(session: Session) -> list[tuple[dict[str, str], float]]:
    found = {labels["outcome"]: count for labels, count in counters.read(session, counters.DELIVERIES)}
    return [({"outcome": word}, found.get(word, 0)) for word in ("sent", "failed", "given_up")]


def _drift(session: Session) -> list[tuple[dict[str, str], float]]:
    drift = models.Drift
    status: Any = case((drift.alarm.is_(True), "alarm"), else_=drift.status)
    rows = session.execute(
        select(drift.model_name, drift.model_version, status, func.count())
        .where(drift.scope == "target")
        .group_by(drift.model_name, drift.model_version, status)
    )
    return [
        ({"model": model, "version": version, "status": word}, count) for model, version, word, count in rows
    ]


def of_devices(state: State) -> list[Metric]:
    """The metrics with a series for each device."""
    up: list[tuple[dict[str, str], float]] = []
    seen: list[tuple[dict[str, str], float]] = []
    serves: list[tuple[dict[str, str], float]] = []
    with state.database.read() as session:
        names = {
            digest: (model, version)
            for digest, model, version in session.execute(
                select(models.Bundle.digest, models.Bundle.model_name, models.Bundle.model_version)
            )
        }
        target = models.Target
        for name, last_seen, digest in session.execute(
            select(target.id, target.last_seen_at, target.actual_digest)
        ):
            labels = {"target": name}
            up.append((labels, 1 if state.is_online(last_seen) else 0))
            if last_seen is not None:
                seen.append((labels, last_seen.timestamp()))
            if digest:
                model, version = names.get(digest, ("", ""))
                serves.append(({**labels, "model": model, "version": version, "digest": digest}, 1))
    return [
        Metric(name="edgeflow_device_up", kind="gauge", text="Whether a device is heard.", samples=up),
        Metric(
            name="edgeflow_device_last_seen_timestamp_seconds",
            kind="gauge",
            text="When a device was heard last.",
            samples=seen,
        ),
        Metric(
            name="edgeflow_device_model_info",
            kind="gauge",
            text="Which model version a device serves.",
            samples=serves,
        ),
    ]
