"""Judge what devices have sent: the hub's look at windows that nobody has judged yet."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, select, tuple_
from sqlalchemy.orm import Session

from edgeflow_agent.drift import verdict
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.drift.verdict import Thresholds
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import drift
from edgeflow_mlflow.domain.drift import Said
from edgeflow_mlflow.services import baselines, drift_rows, judging, refusals, thresholds
from edgeflow_mlflow.services.drift_rows import Judged, Moment
from edgeflow_mlflow.services.judging import Stored, Together
from edgeflow_mlflow.services.state import State

TARGET = "target"
# So many windows are unpacked at once, and so many devices looked at in one pass.
_BATCH = 500
_MOST_GROUPS = 2000

_Unjudged = models.UnjudgedWindow


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Windows of one device, with one model and baseline, that wait to be judged."""

    target: str
    digest: str
    baseline: str
    model: str
    version: str
    samples: int
    windows: int
    since: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.target, self.digest, self.baseline


def evaluate(state: State) -> int:
    """One look at every device with windows that nobody has judged; how many windows were judged."""
    now = state.now()
    with state.database.read() as session:
        groups = _waiting(session)
        by_version: dict[tuple[str, str], list[Waiting]] = defaultdict(list)
        for group in groups:
            by_version[group.model, group.version].append(group)
        usual = {key: thresholds.of(session, *key) for key in by_version}
    count = 0
    for key, found in by_version.items():
        least = usual[key].min_samples
        due = [group for group in found if drift.is_due(group.samples, group.since, least, now)]
        judged: list[Judged] = []
        for batch in _batches(due):
            judged += _judge(state, batch, usual[key], now)
        drift_rows.keep(state, TARGET, key, judged)
        count += sum(len(item.windows) for item in judged)
    drift_rows.end_alarms(state)
    return count


def _waiting(session: Session) -> list[Waiting]:
    row = _Unjudged
    names = (row.target_id, row.digest, row.baseline_sha256)
    rows = session.execute(
        select(
            *names,
            func.max(row.model_name),
            func.max(row.model_version),
            func.sum(row.samples),
            func.count(),
            func.min(row.received_at),
        )
        .group_by(*names)
        .order_by(func.min(row.received_at))
        .limit(_MOST_GROUPS)
    )
    return [
        Waiting(
            target=target,
            digest=digest,
            baseline=baseline,
            model=model,
            version=version,
            samples=int(samples),
            windows=windows,
            since=since,
        )
        for target, digest, baseline, model, version, samples, windows, since in rows
    ]


def _batches(groups: Sequence[Waiting]) -> list[list[Waiting]]:
    found: list[list[Waiting]] = []
    windows = _BATCH
    for group in groups:
        if windows >= _BATCH:
            found.append([])
            windows = 0
        found[-1].append(group)
        windows += group.windows
    return found


def _judge(state: State, groups: Sequence[Waiting], usual: Thresholds, now: datetime) -> list[Judged]:
    windows: dict[tuple[str, str, str], list[Row[Any]]] = {}
    with state.database.read() as session:
        known = {group.baseline: baselines.find(state, session, group.baseline) for group in groups}
        for batch in _read(session, groups):
            windows |= batch
    parts: dict[str, list[tuple[Waiting, list[Row[Any]]]]] = defaultdict(list)
    most = drift_rows.persistence(state).n
    for group in groups:
        mine = windows.get(group.key, [])
        with_rest = drift.is_due(0, group.since, 1, now)
        if known[group.baseline] is None:
            if with_rest:
                _give_up(state, group, mine)
        else:
            samples = [window.samples for window in mine]
            for part in drift.chunks(samples, usual.min_samples, most, with_rest=with_rest):
                parts[group.baseline].append((group, mine[part.start : part.stop]))
    judged: dict[tuple[str, str, str], Judged] = {}
    for name, found in parts.items():
        baseline = known[name]
        if baseline is not None:
            for block in judging.blocks(found):
                _judge_block(state, baseline, block, usual, judged)
    return list(judged.values())


def _judge_block(
    state: State,
    baseline: Baseline,
    block: Sequence[tuple[Waiting, Sequence[Stored]]],
    usual: Thresholds,
    judged: dict[tuple[str, str, str], Judged],
) -> None:
    """Add the evaluations of these groups to `judged`."""
    found = judging.together(baseline, [windows for _, windows in block])
    if found.refused:
        with state.database.write() as session:
            for group, windows in block:
                wrong = {item.id: found.refused[item.id] for item in windows if item.id in found.refused}
                judging.refuse(state, session, group.target, wrong)
    said = verdicts(found, usual)
    for (group, _), windows, mine in zip(block, found.windows, said, strict=True):
        if not windows:
            continue
        if group.key not in judged:
            judged[group.key] = Judged(scope_id=group.target, digest=group.digest, baseline=baseline)
        item = judged[group.key]
        item.deployment = windows[-1].deployment
        item.windows += [window.id for window in windows]
        item.moments.append(
            Moment(
                start=min(window.start for window in windows),
                end=max(window.end for window in windows),
                verdicts=mine,
            )
        )


def _read(session: Session, groups: Sequence[Waiting]) -> list[dict[tuple[str, str, str], list[Row[Any]]]]:
    """The windows of these groups, the earliest first; of each no more than one pass takes."""
    row = _Unjudged
    names = (row.target_id, row.digest, row.baseline_sha256)
    large = [group for group in groups if group.windows > _BATCH]
    small = [group for group in groups if group.windows <= _BATCH]
    found = []
    for part in (*([group] for group in large), *(small[at : at + 100] for at in range(0, len(small), 100))):
        rows = session.execute(
            judging.columns()
            .add_columns(row.digest, row.baseline_sha256, row.samples)
            .join(row, row.window_id == models.Window.id)
            .where(tuple_(*names).in_([group.key for group in part]))
            .order_by(*names, models.Window.end_at, models.Window.id)
            .limit(_BATCH if len(part) == 1 else None)
        ).all()
        by_key = itertools.groupby(rows, key=lambda item: (item[1], item[6], item[7]))
        found.append({key: list(items) for key, items in by_key})
    return found


def verdicts(found: Together, usual: Thresholds) -> list[dict[str, Said]]:
    """For each group of windows the verdict on each feature."""
    each: list[dict[str, Said]] = [{} for _ in found.windows]
    for name, (groups, windows) in found.stacks.items():
        said = map(drift.said, verdict.assess(windows, usual).verdicts(), windows.n.tolist())
        for group, mine in zip(groups.tolist(), said, strict=True):
            each[group][name] = mine
    return each


def _give_up(state: State, group: Waiting, windows: Sequence[Row[Any]]) -> None:
    """Nobody waits for ever for a baseline that is not here. The windows stay, and so can be looked at when
    it comes."""
    text = (
        f"no_baseline: this server has no baseline {group.baseline}, which the windows were counted against"
    )
    with state.database.write() as session:
        session.execute(delete(_Unjudged).where(_Unjudged.window_id.in_([window.id for window in windows])))
        refusals.note(state, session, group.target, [text] * len(windows))
