"""A model, and a device that serves it, as sections of plain values that can be laid side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import timeline
from edgeflow_mlflow.services.lineage.tracing import Trace

_LIVE = timedelta(hours=1)
_DEVICE = ("agent_version", "onnxruntime_version", "platform")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model, published or only read."""

    name: str
    version: str
    digest: str
    size: int
    interface: Mapping[str, Any]
    lineage: Mapping[str, Any]


def facts_of(bundle: models.Bundle) -> ModelFacts:
    """The facts that were kept when a model was published."""
    return ModelFacts(
        name=bundle.model_name,
        version=bundle.model_version,
        digest=bundle.digest,
        size=sum(item["size"] for item in bundle.files),
        interface=bundle.interface,
        lineage=bundle.lineage,
    )


def of_model(facts: ModelFacts) -> dict[str, dict[str, Any]]:
    """The sections of a model."""
    found = facts.lineage
    run = found.get("run") or {}
    logged = found.get("logged_model") or {}
    graph = found.get("graph") or {}
    return {
        "model": {
            "name": facts.name,
            "version": facts.version,
            "digest": facts.digest,
            "size_bytes": facts.size,
            "run": run.get("id"),
            "run_name": run.get("name"),
            "logged_model": logged.get("id"),
        },
        "inputs": _tensors(facts.interface, "inputs"),
        "outputs": _tensors(facts.interface, "outputs"),
        "datasets": _datasets(found.get("datasets", ())),
        "code": {
            "commit": run.get("commit") or None,
            "source": run.get("source") or None,
            "user": run.get("user") or None,
        },
        "params": {**(logged.get("params") or {}), **(run.get("params") or {})},
        "metrics": {**(logged.get("metrics") or {}), **(run.get("metrics") or {})},
        "tags": dict(run.get("tags") or {}),
        "dependencies": dict(found.get("environment") or {}),
        "graph": {
            **{name: graph.get(name) for name in ("parameters", "nodes", "ir") if name in graph},
            **{f"opset {name}": value for name, value in (graph.get("opsets") or {}).items()},
            **{f"operator {name}": value for name, value in sorted((graph.get("operators") or {}).items())},
        },
    }


def _tensors(interface: Mapping[str, Any], side: str) -> dict[str, Any]:
    found = {
        item["name"]: f"{item['dtype']} [{', '.join(str(dim) for dim in item.get('shape', ()))}]"
        for item in interface.get(side, ())
    }
    if side == "inputs":
        found |= {f"column {item['name']}": item["type"] for item in interface.get("columns", ())}
    elif interface.get("labels"):
        found["labels"] = ", ".join(interface["labels"])
    return found


def _datasets(found: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """By name: what was logged under one name several times is one entry."""
    by_name: dict[str, list[str]] = {}
    for item in found:
        content = f", sha256 {item['content'][:16]}" if item.get("content") else ""
        context = f" ({item['context']})" if item.get("context") else ""
        by_name.setdefault(item["name"], []).append(f"{item['digest']}{content}{context}")
    return {name: "; ".join(sorted(set(items))) for name, items in by_name.items()}


def of_device(session: Session, trace: Trace) -> dict[str, dict[str, Any]]:
    """The sections of a device at a moment: its model, how it runs it, what it is, and how it does. What it
    is is only known as it is now."""
    sections = of_model(facts_of(trace.bundle)) if trace.bundle is not None else {}
    if trace.served is not None and trace.bundle is None:
        sections["model"] = {"digest": trace.served.digest}
    if trace.cause is not None:
        sections["settings"] = {
            f"{group}.{name}": value
            for group, given in sorted(trace.cause.rollout.settings.items())
            for name, value in sorted(given.items())
            if group != "rollout"
        }
    if trace.target is not None and trace.is_now:
        presence = trace.target.presence
        sections["device"] = {
            **{name: presence.get(name) for name in _DEVICE},
            **{f"label {name}": value for name, value in sorted(trace.target.labels.items())},
        }
    live = _live(session, trace)
    if live:
        sections["live"] = live
    return sections


def _live(session: Session, trace: Trace) -> dict[str, Any]:
    """Figures of the hour before."""
    if trace.served is None:
        return {}
    begin = max(trace.at - _LIVE, trace.served.since)
    return {
        **_figures(session, trace.target_id, begin, trace.at),
        **(_drift(session, trace.target_id, trace.served.digest) if trace.is_now else {}),
    }


def _figures(session: Session, target_id: str, begin: datetime, end: datetime) -> dict[str, Any]:
    window = models.Window
    rows = session.execute(
        select(window.requests, window.failed, window.latency_counts).where(
            window.target_id == target_id, window.end_at > begin, window.end_at <= end
        )
    ).all()
    if not rows:
        return {}
    requests, failed = sum(row.requests for row in rows), sum(row.failed for row in rows)
    counted = [row.latency_counts for row in rows if row.latency_counts]
    counts = [sum(column) for column in zip(*counted, strict=True)]

    def milliseconds(share: float) -> float | None:
        value = timeline.quantile(counts, share)
        return None if value is None else round(value * 1000, 3)

    return {
        "requests": requests,
        "error_rate": timeline.ratio(failed, requests),
        "latency_p50_ms": milliseconds(0.5),
        "latency_p99_ms": milliseconds(0.99),
    }


def _drift(session: Session, target_id: str, digest: str) -> dict[str, Any]:
    mine = (models.Drift.scope == "target", models.Drift.scope_id == target_id, models.Drift.digest == digest)
    judged = session.scalar(select(func.count()).select_from(models.Drift).where(*mine))
    if not judged:
        return {}
    names = session.scalars(
        select(models.Drift.feature).where(*mine, models.Drift.alarm.is_(True)).order_by(models.Drift.feature)
    ).all()
    return {"drifting_features": ", ".join(names) or "none"}
