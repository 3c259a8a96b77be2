"""From stored windows to sketches, against the baseline that they were counted with.

Windows are unpacked, checked and put together many at once, feature by feature: that is what makes it
quick. Each is held against the baseline, and those at fault are left out for good: a device can lie about
what it has seen in any case; what must not happen is that its windows spoil those of others.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.drift import reading, stack
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.drift.bins import Ints
from edgeflow_agent.drift.stack import Stack
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import packed
from edgeflow_mlflow.domain.packed import PackedRecord
from edgeflow_mlflow.services import refusals
from edgeflow_mlflow.services.state import State

K = TypeVar("K")
T = TypeVar("T")

# So many bytes of packed windows are unpacked at once: they take some thirty times as much then.
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A window whose sketches are to be looked at; `problem` says why they cannot be."""

    id: int
    target: str
    deployment: str
    start: datetime
    end: datetime
    features: tuple[PackedRecord, ...] = ()
    problem: str = ""


@dataclass(kw_only=True)
class Together:
    """What groups of windows come to. `stacks` has for each feature the numbers of the groups that have it,
    and a row for each of them. `windows` are those of each group that fit, `refused` by their ids why the
    others do not."""

    windows: list[list[Stored]]
    stacks: dict[str, tuple[Ints, Stack]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Pooled:
    """What devices come to in each of some scopes, a single row for each feature; the windows of each device
    that fit, without their sketches, and how many do not."""

    stacks: dict[Any, dict[str, Stack]]
    windows: dict[str, list[tuple[datetime, datetime]]] = field(default_factory=dict)
    refused: int = 0


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
        return {"features": packed.records(payload)}
    except agent_errors.ContractError as error:
        return {"problem": f"sketches: {error}"}


def blocks(groups: Iterable[tuple[T, Sequence[Any]]]) -> Iterator[list[tuple[T, list[Stored]]]]:
    """Groups of rows, with their windows unpacked, as many at once as memory allows."""
    block: list[tuple[T, list[Stored]]] = []
    size = 0
    for name, rows in groups:
        block.append((name, stored(rows)))
        size += sum(len(row[5] or b"") for row in rows)
        if size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def together(baseline: Baseline, groups: Sequence[Sequence[Stored]]) -> Together:
    """The sketches of groups of windows, each group of one device."""
    refused = {window.id: window.problem for group in groups for window in group if window.problem}
    while True:
        windows = [[window for window in group if window.id not in refused] for group in groups]
        stacks, wrong = _stacks(baseline, windows)
        if not wrong:
            return Together(windows=windows, stacks=stacks, refused=refused)
        refused |= wrong


def _stacks(
    baseline: Baseline, groups: Sequence[Sequence[Stored]]
) -> tuple[dict[str, tuple[Ints, Stack]], dict[int, str]]:
    known = {feature.name: feature for feature in baseline.features}
    records: dict[str, list[PackedRecord]] = defaultdict(list)
    owners: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, group in enumerate(groups):
        for window in group:
            owner = (number, window.id)
            for record in window.features:
                records[record.name].append(record)
                owners[record.name].append(owner)
    stacks: dict[str, tuple[Ints, Stack]] = {}
    wrong: dict[int, str] = {}
    for name, found in records.items():
        numbers, identifiers = zip(*owners[name], strict=True)
        if name not in known:
            text = f"sketches: the baseline has no feature {name[:100]!r}"
            wrong |= dict.fromkeys(identifiers, text)
            continue
        present, rows = np.unique(np.array(numbers), return_inverse=True)
        made, problems = reading.read(known[name], found, rows, present.size, packed.flat)
        for place, problem in problems.items():
            wrong.setdefault(
                identifiers[place], f"sketches: the window of {name[:100]!r} is refused: {problem}"
            )
        if made is not None:
            stacks[name] = (present, made)
    return stacks, wrong


def pooled(baseline: Baseline, rows: Iterable[Any], scopes: Mapping[K, Set[str]]) -> Pooled:
    """Windows, which are in the order of their devices, as one in each scope: a set of devices."""
    result = Pooled(stacks={scope: {} for scope in scopes})
    devices = ((target, list(mine)) for target, mine in itertools.groupby(rows, key=lambda row: str(row[1])))
    for block in blocks(devices):
        found = together(baseline, [windows for _, windows in block])
        result.refused += len(found.refused)
        targets = [target for target, _ in block]
        for target, windows in zip(targets, found.windows, strict=True):
            if windows:
                result.windows[target] = [(window.start, window.end) for window in windows]
        for scope, members in scopes.items():
            mine = np.array([target in members for target in targets])
            for name, (present, made) in found.stacks.items():
                if not mine[present].any():
                    continue
                added = made.take(mine[present]).summed()
                totals = result.stacks[scope]
                totals[name] = stack.joined(totals[name], added).summed() if name in totals else added
    return result


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
