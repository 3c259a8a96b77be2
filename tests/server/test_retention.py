"""Minutes become hours and days, and nothing that was counted is lost or counted twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import delete, func, select

from edgeflow_agent.wire import telemetry as wire
from edgeflow_agent.wire.telemetry import TelemetryWindow
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import merging
from edgeflow_mlflow.services import baselines, drift, retention, telemetry
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock
from tests.server.watched_device import Watched, baseline_content, fleet, on_sqlite, values


def sent(state: State, clock: Clock, device: Watched, count: int, minutes: float) -> list[TelemetryWindow]:
    found = []
    for _ in range(count):
        clock.pass_by(minutes=minutes)
        window = device.window(values(20), dropped=3, resources={"temperature_c": 40.0})
        telemetry.take(state, device.name, [wire.pack(window)])
        found.append(window)
    return found


def totals(state: State) -> tuple[int, ...]:
    row = models.Window
    with state.database.read() as session:
        found = session.execute(
            select(
                func.sum(row.requests), func.sum(row.observed), func.sum(row.seconds), func.max(row.dropped)
            )
        ).one()
        return tuple(int(value) for value in found)


def spans(state: State) -> dict[str, int]:
    with state.database.read() as session:
        rows = session.execute(select(models.Window.span, func.count()).group_by(models.Window.span))
        return {span: count for span, count in rows}  # noqa: C416 - rows are no tuples to mypy


def test_the_life_of_windows(state: State, clock: Clock, tmp_path: Path) -> None:
    one, two = fleet(state, tmp_path, "robot-1", "robot-2")
    clock.pass_by(minutes=30)
    windows = sent(state, clock, one, 12, 15)
    sent(state, clock, two, 2, 1)
    before = totals(state)
    assert retention.retain(state) == 0

    clock.pass_by(hours=23)
    retention.retain(state)
    assert 0 < spans(state)["raw"] < 14
    clock.pass_by(hours=24)
    retention.retain(state)
    # A second look merged into the hours of the first.
    assert spans(state) == {"hour": 5}
    assert totals(state) == before

    clock.pass_by(days=14)
    retention.retain(state)
    assert spans(state) == {"day": 2}
    assert totals(state) == before
    with state.database.read() as session:
        day = session.scalars(select(models.Window).where(models.Window.target_id == one.name)).one()
        ranges = session.scalars(select(models.MergedWindows).order_by(models.MergedWindows.target_id)).all()
        waiting = session.scalar(select(func.count()).select_from(models.UnjudgedWindow))
    assert [(row.target_id, row.first_seq, row.last_seq) for row in ranges] == [
        (one.name, 1, 12),
        (two.name, 1, 2),
    ]
    assert waiting == 0
    assert (day.model_name, day.baseline_sha256, day.boot) == ("iris", one.bundle.baseline_sha256, None)
    assert day.outcomes == {"ok": 240}
    assert sum(day.latency_counts) == 240
    assert day.resources == {"temperature_c": 40.0}
    assert day.end_at - day.start_at == timedelta(minutes=15 * 11 + 1)
    whole = merging.by_feature(window.features for window in windows)
    features = {record.name: record for record in wire.unpack(day.payload or b"").features}
    assert features.keys() == whole.keys()
    for name, records in whole.items():
        assert features[name].n == sum(record.n for record in records) == 240
    assert features["colour"] == merging.merge(whole["colour"])

    telemetry.take(state, one.name, [wire.pack(windows[3])])  # a repeat of what is a part of a day by now
    assert totals(state) == before

    clock.pass_by(days=365)
    retention.retain(state)
    assert spans(state) == {}


@on_sqlite
def test_windows_without_features_and_of_no_model_are_kept_as_well(
    state: State, clock: Clock, tmp_path: Path
) -> None:
    (device,) = fleet(state, tmp_path, "robot-1")
    telemetry.take(
        state,
        device.name,
        [device.sent(), device.sent(digest="", baseline=""), device.sent(values(20), digest="0" * 64)],
    )
    clock.pass_by(hours=25)
    assert retention.retain(state) == 3
    with state.database.read() as session:
        rows = session.scalars(
            select(models.Window).order_by(models.Window.digest, models.Window.requests)
        ).all()
    assert [(row.span, row.requests, row.payload, row.refused[:7]) for row in rows] == [
        ("hour", 30, None, "foreign"),
        ("hour", 10, None, ""),
    ]


def test_a_target_that_was_deleted_leaves_nothing_behind(state: State, clock: Clock, tmp_path: Path) -> None:
    one, two = fleet(state, tmp_path, "robot-1", "robot-2")
    for device in (one, two):
        telemetry.take(
            state, device.name, [device.sent(values(500)), device.sent(values(20), digest="x" * 64)]
        )
        drift.evaluate(state)
        telemetry.take(state, device.name, [device.sent(values(20))])
    baselines.learn(state, one.name, one.bundle.digest, baseline_content(n=200))
    assert retention.forget_gone(state) == 0
    with state.database.write() as session:
        session.execute(delete(models.Target).where(models.Target.id == "robot-1"))
    assert retention.forget_gone(state) == 3
    tables = [models.Window, models.UnjudgedWindow, models.RefusedTelemetry, models.LearnedBaseline]
    with state.database.read() as session:
        for table in tables:
            assert "robot-1" not in session.scalars(select(table.target_id)).all()
        assert set(session.scalars(select(models.Drift.scope_id))) == {"robot-2"}
        assert session.scalars(select(models.Window.target_id)).all() == ["robot-2"] * 3
