"""From stored windows to sketches, against the baseline that they were counted with.

Windows are put together as records and held against the baseline once, as a sum: that is what makes it quick.
Only when the sum does not fit is each looked at alone, and those at fault are left out for good. A device
can lie about what it has seen in any case; what must not happen is that its windows spoil those of others,
so windows of different devices meet only after each device's own sum has been checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.drift import record
from edgeflow_agent.drift.baseline import Baseline, Feature
from edgeflow_agent.drift.sketch import Sketch, empty
from edgeflow_agent.wire import telemetry as wire
from edgeflow_agent.wire.sketches import SketchRecord
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import merging
from edgeflow_mlflow.services import refusals
from edgeflow_mlflow.services.state import State


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A window whose sketches are to be looked at; `problem` says why they cannot be."""

    id: int
    target: str
    deployment: str
    start: datetime
    end: datetime
    features: tuple[SketchRecord, ...] = ()
    problem: str = ""


@dataclass(kw_only=True)
class Together:
    """What windows of one device come to: a sketch of each feature, and the windows that do not fit, each
    with the reason."""

    sketches: dict[str, Sketch] = field(default_factory=dict)
    windows: list[Stored] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


def columns() -> Select[*tuple[Any, ...]]:
    """What `stored` makes windows of."""
    row = models.Window
    return select(row.id, row.target_id, row.deployment_id, row.start_at, row.end_at, row.payload)


def stored(rows: Iterable[Any]) -> list[Stored]:
    """Windows with their sketches unpacked."""
    return [
        Stored(
            id=identifier,
            target=target,
            deployment=deployment,
            start=start,
            end=end,
            **_sketched(payload),
        )
        for identifier, target, deployment, start, end, payload, *_ in rows
    ]


def _sketched(payload: bytes | None) -> dict[str, Any]:
    if payload is None:
        return {}
    try:
        return {"features": wire.unpack(payload).features}
    except agent_errors.ContractError as error:
        return {"problem": f"sketches: {error}"}


def together(baseline: Baseline, windows: Sequence[Stored]) -> Together:
    """The sketches of windows of one device."""
    known = {feature.name: feature for feature in baseline.features}
    refused = {window.id: window.problem for window in windows if window.problem}
    readable = [window for window in windows if not window.problem]
    try:
        return Together(sketches=_sketches(known, readable), windows=readable, refused=refused)
    except (ValueError, agent_errors.ContractError):
        refused |= {window.id: problem for window in readable if (problem := _problem(known, window))}
    fitting = [window for window in windows if window.id not in refused]
    try:
        return Together(sketches=_sketches(known, fitting), windows=fitting, refused=refused)
    except (ValueError, agent_errors.ContractError) as error:
        # Each is possible alone, and all of them together are not: more values than can be counted.
        refused |= {window.id: f"sketches: {error}" for window in fitting}
        return Together(refused=refused)


def _sketches(known: dict[str, Feature], windows: Sequence[Stored]) -> dict[str, Sketch]:
    found = {}
    for name, records in merging.by_feature(window.features for window in windows).items():
        if name not in known:
            raise ValueError(f"the baseline has no feature {name[:100]!r}")
        found[name] = record.from_record(known[name], merging.merge(records))
    return found


def _problem(known: dict[str, Feature], window: Stored) -> str:
    try:
        _sketches(known, [window])
    except (ValueError, agent_errors.ContractError) as error:
        return f"sketches: {error}"
    return ""


def pooled(devices: Iterable[Together]) -> dict[str, Sketch]:
    """The sketches of several devices as one; each was checked before."""
    found: dict[str, Sketch] = {}
    for device in devices:
        for name, sketch in device.sketches.items():
            if name not in found:
                found[name] = empty(sketch.feature)
            # Both are of the same feature, so of the same kind.
            found[name].merge(sketch)  # type: ignore[arg-type]
    return found


def refuse(state: State, session: Session, target_id: str, refused: dict[int, str]) -> None:
    """Drop sketches that do not fit, for good, and count why."""
    for identifier, text in refused.items():
        session.execute(
            update(models.Window)
            .where(models.Window.id == identifier)
            .values(payload=None, refused=text[:1024].replace("\0", "\ufffd"))
        )
    if refused:
        session.execute(delete(models.UnjudgedWindow).where(models.UnjudgedWindow.window_id.in_(refused)))
        refusals.note(state, session, target_id, refused.values())
