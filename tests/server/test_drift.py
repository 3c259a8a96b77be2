"""What the hub makes of windows: verdicts, alarms, and what it costs who lies."""

from __future__ import annotations

import zlib
from pathlib import Path

from sqlalchemy import func, select, update

from edgeflow_agent.wire import telemetry as wire
from edgeflow_agent.wire.sketches import Sparse
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import drift, drift_rows, pooling, refusals, telemetry, thresholds
from edgeflow_mlflow.services import fleets as fleet_service
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock
from tests.server.watched_device import FEATURES, Watched, fleet, hostile, on_sqlite, values


def verdicts(state: State, scope: str = "target", name: str = "robot-1") -> dict[str, models.Drift]:
    with state.database.read() as session:
        found = session.scalars(
            select(models.Drift).where(models.Drift.scope == scope, models.Drift.scope_id == name)
        )
        return {row.feature: row for row in found}


def unjudged(state: State) -> int:
    with state.database.read() as session:
        return session.scalar(select(func.count()).select_from(models.UnjudgedWindow)) or 0


def minute(state: State, clock: Clock, *devices: Watched, n: int = 500, shift: float = 0.0) -> None:
    """Every device sends a window, and the hub looks."""
    clock.pass_by(seconds=60)
    for device in devices:
        telemetry.take(state, device.name, [device.sent(values(n, shift))])
    drift.evaluate(state)


def test_a_shift_is_an_alarm_in_the_second_window_and_no_longer_when_it_is_over(
    state: State, clock: Clock, tmp_path: Path
) -> None:
    one, two = fleet(state, tmp_path, "robot-1", "robot-2")
    minute(state, clock, one, two)
    assert {row.status for row in verdicts(state).values()} == {"ok"}
    assert unjudged(state) == 0
    for _ in range(2):
        assert not any(row.alarm for row in verdicts(state).values())
        clock.pass_by(seconds=60)
        telemetry.take(state, one.name, [one.sent(values(500, 1.0))])
        telemetry.take(state, two.name, [two.sent(values(500))])
        drift.evaluate(state)
    found = verdicts(state)
    assert [name for name, row in found.items() if row.alarm] == ["length", "width"]
    assert not any(row.alarm for row in verdicts(state, name="robot-2").values())
    row = found["width"]
    assert (row.kind, row.status, row.significant, row.evaluations, row.n) == ("input", "drift", True, 3, 500)
    assert (row.model_name, row.model_version) == ("iris", "1")
    assert [entry["status"] for entry in row.history] == ["ok", "drift", "drift"]
    assert any("standard deviations above" in signal["text"] for signal in row.signals)
    assert row.deployment_id
    for _ in range(2):
        minute(state, clock, one)
    assert not any(row.alarm for row in verdicts(state).values())


@on_sqlite
def test_few_values_wait_for_others_or_an_hour(state: State, clock: Clock, tmp_path: Path) -> None:
    (device,) = fleet(state, tmp_path, "robot-1")
    for _ in range(4):
        minute(state, clock, device, n=100)
    assert (verdicts(state), unjudged(state)) == ({}, 4)
    minute(state, clock, device, n=100)
    assert ({row.n for row in verdicts(state).values()}, unjudged(state)) == ({500}, 0)
    minute(state, clock, device, n=100)
    clock.pass_by(hours=1)
    drift.evaluate(state)
    assert unjudged(state) == 0
    found = verdicts(state)
    assert {row.status for row in found.values()} == {"insufficient_data"}
    assert {row.evaluations for row in found.values()} == {1}


@on_sqlite
def test_what_comes_after_a_long_absence_makes_a_few_evaluations(
    state: State, clock: Clock, tmp_path: Path
) -> None:
    (device,) = fleet(state, tmp_path, "robot-1")
    telemetry.take(state, device.name, [device.sent(values(500)) for _ in range(20)])
    drift.evaluate(state)
    row = verdicts(state)["width"]
    assert len(row.history) <= 3
    assert sum(entry["n"] for entry in row.history) + 500 * unjudged(state) == 10_000


@on_sqlite
def test_who_lies_is_left_out_and_counted(state: State, clock: Clock, tmp_path: Path) -> None:
    (device,) = fleet(state, tmp_path, "robot-1")
    window = device.window(values(500))
    lies = [
        hostile(device.window(values(500)), mean=1e300),
        hostile(device.window(values(500)), n=10**6),
        hostile(device.window(values(500)), name="unknown"),
        hostile(device.window(values(500)), m2=-1.0),
        hostile(device.window(values(500)), fine=Sparse(gap=(2**53,), count=(500,))),
    ]
    unreadable = zlib.decompress(device.sent(values(500))).replace(b'"m2":', b'"m2":-1e999,"m3":')
    packed = [*(wire.pack(item) for item in (window, *lies)), zlib.compress(unreadable)]
    telemetry.take(state, device.name, packed)
    # The first look takes large parts, since one of them claims to have so many values.
    for _ in range(5):
        drift.evaluate(state)
    found = verdicts(state)
    assert set(found) == set(FEATURES)
    assert {row.status for row in found.values()} == {"ok"}
    with state.database.read() as session:
        counted = {row.reason: row.count for row in refusals.of_target(session, device.name)}
        dropped = session.scalars(select(models.Window.seq).where(models.Window.refused != "")).all()
    assert counted == {"sketches": 6}
    assert sorted(seq for seq in dropped if seq) == [*(item.seq for item in lies), 7]


@on_sqlite
def test_windows_of_a_baseline_that_never_comes_are_given_up(
    state: State, clock: Clock, tmp_path: Path
) -> None:
    (device,) = fleet(state, tmp_path, "robot-1")
    packed = device.sent(values(500), baseline="a" * 64, is_learned=True)
    telemetry.take(state, device.name, [packed])
    drift.evaluate(state)
    assert unjudged(state) == 1
    clock.pass_by(hours=1)
    drift.evaluate(state)
    assert (verdicts(state), unjudged(state)) == ({}, 0)
    with state.database.read() as session:
        assert [row.reason for row in refusals.of_target(session, device.name)] == ["no_baseline"]


@on_sqlite
def test_thresholds_of_a_version_decide(state: State, clock: Clock, tmp_path: Path) -> None:
    (device,) = fleet(state, tmp_path, "robot-1")
    thresholds.put(state, "iris", "1", {"limits": {"psi_groups": None}, "min_samples": 100}, actor="me")
    minute(state, clock, device, n=100)
    row = verdicts(state)["width"]
    assert row.status == "ok"
    assert "psi_groups" not in {signal["statistic"] for signal in row.signals}


def test_an_alarm_ends_when_the_device_serves_something_else(
    state: State, clock: Clock, tmp_path: Path
) -> None:
    (device,) = fleet(state, tmp_path, "robot-1")
    for _ in range(2):
        minute(state, clock, device, shift=1.0)
    assert verdicts(state)["width"].alarm
    with state.database.write() as session:
        session.execute(update(models.Target).values(actual_digest="0" * 64))
    drift_rows.end_alarms(state)
    assert not any(row.alarm for row in verdicts(state).values())


def test_a_change_too_small_for_one_device_is_found_in_all(
    state: State, clock: Clock, tmp_path: Path
) -> None:
    devices = fleet(state, tmp_path, *(f"robot-{number}" for number in range(12)))
    fleet_service.create(
        state, "east", selector="", targets=[device.name for device in devices[:6]], actor="me"
    )
    for _ in range(2):
        minute(state, clock, *devices, n=200, shift=0.35)
        pooling.evaluate(state)
    assert verdicts(state, name="robot-3") == {}
    for scope, name, n in (("model", "", 4800), ("fleet", "east", 2400)):
        found = verdicts(state, scope, name)
        assert (found["width"].n, found["width"].status) == (n, "drift")
        assert found["width"].alarm
        assert not found["colour"].alarm
