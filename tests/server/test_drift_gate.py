"""A wave waits for what its devices see, and for no longer than it was told."""

from __future__ import annotations

from typing import Any

import pytest

from edgeflow_mlflow.db import models
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock
from tests.server.test_rollouts import Fleet
from tests.server.watched_device import on_sqlite


def judge(ten: Fleet, name: str, version: str, *, kind: str = "input", **row: Any) -> None:
    """The hub's verdict on one feature of a device."""
    now = ten.state.now()
    filled = {"scope": "target", "scope_id": name, "digest": ten.bundles[version].digest, "status": "ok"}
    with ten.state.database.write() as session:
        session.merge(
            models.Drift(
                **(filled | {"baseline_sha256": "b", "feature": f"{kind}-1", "evaluations": 3} | row),
                kind=kind,
                from_at=now,
                to_at=now,
                updated_at=now,
            )
        )


@pytest.fixture
def ten(state: State, clock: Clock) -> Fleet:
    made = Fleet(state, clock, 10)
    made.everywhere("1")
    clock.pass_by(minutes=1)
    return made


def begin(ten: Fleet, **settings: Any) -> None:
    ten.deploy("2", waves=["4", "100%"], max_drift_rate=0.3, **settings)
    ten.tick()
    assert len(ten.obey()) == 4
    ten.clock.pass_by(minutes=1)
    ten.tick()


def reading(ten: Fleet) -> str:
    with ten.state.database.read() as session:
        wave = session.get_one(models.RolloutWave, (ten.rollout().id, ten.rollout().wave))
        return next(f"{item['verdict']}: {item['text']}" for item in wave.readings if item["gate"] == "drift")


def first_wave(ten: Fleet) -> list[str]:
    digest = ten.bundles["2"].digest
    with ten.state.database.read() as session:
        rows = session.query(models.RolloutMember).filter_by(rollout_id=ten.rollout().id, wave=1)
        assert digest
        return sorted(row.target_id for row in rows)


def test_the_next_wave_waits_for_verdicts_and_goes_on_when_they_are_good(ten: Fleet) -> None:
    begin(ten)
    assert reading(ten) == "wait: none of 4 devices has sent enough telemetry for a verdict on drift"
    names = first_wave(ten)
    judge(ten, names[0], "2", evaluations=1)
    judge(ten, names[1], "1", alarm=True)  # what it served before
    ten.tick()
    assert reading(ten).startswith("wait: none")
    for name in names:
        judge(ten, name, "2", alarm=name == names[3], status="drift" if name == names[3] else "ok")
    ten.tick()
    assert ten.rollout().wave == 2


@on_sqlite
def test_drift_of_too_many_halts_it(ten: Fleet) -> None:
    begin(ten)
    for name in first_wave(ten):
        judge(ten, name, "2", alarm=name < "robot-9", kind="output")
    ten.tick()
    assert ten.rollout().state == "paused"
    assert "devices have drifted, more than 30%" in ten.rollout().why


@on_sqlite
def test_only_what_was_asked_for_counts(ten: Fleet) -> None:
    begin(ten, drift_gate="inputs")
    for name in first_wave(ten):
        judge(ten, name, "2", alarm=True, kind="output")
        judge(ten, name, "2", kind="input")
    ten.tick()
    assert ten.rollout().wave == 2


@on_sqlite
def test_silence_does_not_hold_it_up_for_ever(ten: Fleet) -> None:
    begin(ten, drift_wait_s=600)
    ten.clock.pass_by(minutes=8)
    ten.tick()
    assert ten.rollout().wave == 1
    ten.clock.pass_by(minutes=2)
    ten.tick()
    assert ten.rollout().wave == 2


def test_what_had_drifted_before_is_not_the_new_version_s_doing(ten: Fleet) -> None:
    """A robot with a dirty camera must not halt the rollout of a model that is no worse."""
    begin(ten)
    now = ten.state.now()
    names = first_wave(ten)
    for name in names:
        judge(ten, name, "1", alarm_at=now)
        judge(ten, name, "2", alarm=True, status="drift")
    ten.tick()
    assert ten.rollout().wave == 2
    # Another feature is news.
    assert len(ten.obey()) == 6
    ten.clock.pass_by(minutes=1)
    for name in ten.names:
        judge(ten, name, "2", alarm=True, status="drift", feature="input-2")
    ten.tick()
    assert ten.rollout().state == "paused"
