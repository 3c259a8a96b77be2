"""What receivers are sent: Alertmanager's webhook payload, text for chats and mails, alerts to forward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edgeflow_mlflow.domain import alert_groups
from edgeflow_mlflow.domain.alert_groups import Reason

# So many alerts in one notification; how many more there are is said.
MOST = 50
# A forwarded alert that is not sent again in time ends by itself.
FORWARD_EVERY = timedelta(seconds=60)
FORWARD_LIFE = timedelta(minutes=4)
FORWARD_RESOLVED = timedelta(minutes=5)
_NEVER = "0001-01-01T00:00:00Z"
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, kw_only=True)
class Told:
    """An alert as receivers see it."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    fingerprint: str
    starts_at: datetime
    ends_at: datetime | None = None

    @property
    def is_firing(self) -> bool:
        """Whether it has not ended."""
        return self.ends_at is None


@dataclass(frozen=True, kw_only=True)
class Notification:
    """One notification of a group. `external_url` is where people find this server."""

    receiver: str
    reason: Reason
    group_labels: Mapping[str, str]
    alerts: Sequence[Told]
    external_url: str = ""

    @property
    def status(self) -> str:
        """Firing while one of them does."""
        return "firing" if any(item.is_firing for item in self.alerts) else "resolved"


def moment(when: datetime) -> str:
    """As RFC 3339."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def common(items: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What all of them have in common."""
    first, *others = [dict(item) for item in items] or [{}]
    return {name: value for name, value in first.items() if all(item.get(name) == value for item in others)}


def generator(external_url: str, labels: Mapping[str, str]) -> str:
    """Where an alert comes from: its rule."""
    if not external_url:
        return ""
    return f"{external_url.rstrip('/')}/api/v1/alert-rules/{labels.get('alertname', '')}"


def webhook(told: Notification) -> dict[str, Any]:
    """Alertmanager's payload, version 4."""
    shown = told.alerts[:MOST]
    return {
        "version": "4",
        "groupKey": alert_groups.key(told.receiver, told.group_labels),
        "truncatedAlerts": len(told.alerts) - len(shown),
        "status": told.status,
        "receiver": told.receiver,
        "groupLabels": dict(told.group_labels),
        "commonLabels": common(item.labels for item in told.alerts),
        "commonAnnotations": common(item.annotations for item in told.alerts),
        "externalURL": told.external_url,
        "alerts": [
            {
                "status": "firing" if item.is_firing else "resolved",
                "labels": dict(item.labels),
                "annotations": dict(item.annotations),
                "startsAt": moment(item.starts_at),
                "endsAt": _NEVER if item.ends_at is None else moment(item.ends_at),
                "generatorURL": generator(told.external_url, item.labels),
                "fingerprint": item.fingerprint,
            }
            for item in shown
        ],
    }


def title(told: Notification) -> str:
    """One line: how it stands, and what it is about."""
    firing = [item for item in told.alerts if item.is_firing]
    word = "RESOLVED" if not firing else "FIRING" if len(firing) == 1 else f"FIRING: {len(firing)}"
    what = " ".join(value for value in told.group_labels.values() if value) or "alerts"
    again = ", again" if told.reason is Reason.REPEATED else ""
    return f"[{word}] {what}{again}"


def lines(told: Notification) -> list[str]:
    """A line for each alert, those that fire first."""
    found = []
    for item in sorted(told.alerts, key=lambda alert: not alert.is_firing)[:MOST]:
        severity = item.labels.get("severity", "")
        mark = severity if item.is_firing else "resolved"
        text = item.annotations.get("summary") or " ".join(
            f"{name}={value}" for name, value in sorted(item.labels.items())
        )
        more = item.annotations.get("description", "") if item.is_firing else ""
        found.append(f"{mark}: {text}" + (f" ({more})" if more else ""))
    if len(told.alerts) > MOST:
        found.append(f"and {len(told.alerts) - MOST} more")
    return found


def slack(told: Notification) -> dict[str, Any]:
    """What chats with Slack's incoming webhooks take."""
    text = "\n".join(f"• {line}".translate(_SLACK) for line in lines(told))
    where = f"\n<{told.external_url}|Edgeflow>" if told.external_url else ""
    return {"text": f"*{title(told).translate(_SLACK)}*\n{text}{where}"}


def mail(told: Notification) -> dict[str, Any]:
    """Subject and text of a mail."""
    where = f"\n\n{told.external_url}" if told.external_url else ""
    return {
        "subject": " ".join(f"Edgeflow {title(told)}".split()),
        "text": "\n".join(lines(told)) + where + "\n",
    }


def forwarded(alerts: Iterable[Told], now: datetime, external_url: str) -> list[dict[str, Any]]:
    """What `POST /api/v2/alerts` of an Alertmanager takes. An empty label is none there."""
    return [
        {
            "labels": {name: value for name, value in item.labels.items() if value},
            "annotations": {name: value for name, value in item.annotations.items() if value},
            "startsAt": moment(item.starts_at),
            "endsAt": moment(now + FORWARD_LIFE if item.ends_at is None else item.ends_at),
            "generatorURL": generator(external_url, item.labels),
        }
        for item in alerts
    ]
