"""The server's rules and devices that play the agent's, over a network that loses, repeats and delays.

Whatever happens on the way: after quiet every device is what it is to be, and everything has come to an end.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from edgeflow_agent.wire import signing, states
from edgeflow_agent.wire.documents import PresenceKind, Report
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow import config, errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.engine import Database
from edgeflow_mlflow.domain import rollouts
from edgeflow_mlflow.services import advance, control, deploy, desired, ingest, opening, reconcile, revisions
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_bundle, add_target
from tests.server.played_device import PlayedDevice

NAMES = ["robot-01", "robot-02", "robot-03", "robot-04", "robot-05"]
VERSIONS = "123456"
_STRATEGIES: list[dict[str, Any]] = [
    {"waves": []},
    {"waves": ["1", "50%", "100%"], "soak_s": 30},
    {"waves": ["1", "100%"], "on_failure": "rollback", "max_failure_rate": 0.4, "minimum_executed": 1},
    {"waves": ["2", "100%"], "rate_per_minute": 30, "offline_wait_s": 120},
    {"waves": ["1", "100%"], "approval": True, "retries": {"transfer": 1, "silence": 0}},
]


class _Template:
    """A database with the fleet in it, made once and copied for each example."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgeflow-machine-"))
        flags = {"server.data_dir": str(self.folder / "data")}
        loaded = config.load(
            environment={},
            flags={**flags, "server.database_url": f"sqlite:///{self.folder / 'template.db'}"},
        )
        self.clock = Clock()
        opened = opening.open_state(opening.resolve(loaded, None))
        self.state = dataclasses.replace(opened, now=self.clock)
        for name in NAMES:
            add_target(self.state, name)
        for version in VERSIONS:
            add_bundle(self.state, version)
        opened.database.dispose()
        trust = signing.verify_trust(opened.keyring.trust, opened.keyring.root_key)
        self.keys = signing.trusted_keys(trust)

    def copy(self, number: int) -> State:
        place = self.folder / f"{number}.db"
        shutil.copy(self.folder / "template.db", place)
        clock = Clock()
        return dataclasses.replace(self.state, database=Database(f"sqlite:///{place}"), now=clock)


_template: list[_Template] = []
_count = [0]


class FleetMachine(RuleBasedStateMachine):
    """Operators, a hub, five devices, and messages between them."""

    @initialize()
    def begin(self) -> None:
        if not _template:
            _template.append(_Template())
        _count[0] += 1
        self.state = _template[0].copy(_count[0])
        self.clock: Clock = self.state.now  # type: ignore[assignment]
        fleet, keys = self.state.keyring.fleet, _template[0].keys
        self.devices = {name: PlayedDevice(name, fleet, keys) for name in NAMES}
        self.skew = dict.fromkeys(NAMES, timedelta())
        self.online = set(NAMES)
        self.to_server: list[tuple[str, Report]] = []
        self.to_device: list[tuple[str, bytes]] = []
        self.ended: dict[str, str] = {}
        self.generations = dict.fromkeys(NAMES, 0)
        for name in NAMES:
            self._hello(name, PresenceKind.BIRTH)

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self._quiet()
            self.state.database.dispose()
            Path(str(self.state.database.url.database)).unlink()

    # ---- operators

    @rule(version=st.sampled_from(VERSIONS), strategy=st.sampled_from(_STRATEGIES))
    def deploy(self, version: str, strategy: dict[str, Any]) -> None:
        what = revisions.What(bundle_id=f"bundle-iris-{version}", model_uri=f"models:/iris/{version}")
        given = {"rollout": strategy}
        with self.state.database.read() as session:
            known = deploy.find(session, "iris") is not None
        if known:
            change = deploy.Change(what=what, settings=given)
            deploy.update(self.state, "iris", change, actor="anna")
        else:
            where = deploy.Where(targets=tuple(NAMES))
            deploy.create(self.state, "iris", where=where, what=what, settings=given, actor="anna")

    @rule(
        act=st.sampled_from(
            [
                control.pause,
                control.resume,
                control.approve,
                lambda state, name, **who: control.abort(state, name, control.Abort.KEEP, **who),
                lambda state, name, **who: control.abort(state, name, control.Abort.REVERT, **who),
                lambda state, name, **who: control.roll_back(state, name, None, **who),
                lambda state, name, **who: control.roll_back(state, name, 1, **who),
            ]
        )
    )
    def decide(self, act: Callable[..., Any]) -> None:
        try:
            act(self.state, "iris", actor="anna", why="")
        except (errors.ConflictError, errors.NotFoundError):
            return

    @rule(name=st.sampled_from(NAMES), out=st.booleans())
    def hold(self, name: str, out: bool) -> None:
        try:
            (control.hold if out else control.release)(self.state, name, actor="anna", why="")
        except errors.ConflictError:
            return

    # ---- time and the hub

    @rule(seconds=st.sampled_from([0, 1, 31, 120, 700, 4000, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.clock.pass_by(seconds=seconds)
        self._hub()

    @rule(name=st.sampled_from(NAMES), hours=st.sampled_from([-30, 0, 30, 24 * 400]))
    def a_clock_jumps(self, name: str, hours: int) -> None:
        self.skew[name] = timedelta(hours=hours)

    def _hub(self) -> None:
        reconcile.time_out(self.state)
        advance.advance_all(self.state)
        for item in reconcile.outgoing(self.state):
            self.to_device.append((item.target, item.document))
            ingest.offered(self.state, {item.target: item.generation})

    # ---- the network

    @rule(place=st.integers(0, 10**6), again=st.booleans())
    def a_message_reaches_the_server(self, place: int, again: bool) -> None:
        if self.to_server:
            place %= len(self.to_server)
            name, report = self.to_server[place] if again else self.to_server.pop(place)
            self._reaches_server(name, report, answered=not again)

    @rule(place=st.integers(0, 10**6), again=st.booleans())
    def a_message_reaches_a_device(self, place: int, again: bool) -> None:
        if self.to_device:
            place %= len(self.to_device)
            name, envelope = self.to_device[place] if again else self.to_device.pop(place)
            if name in self.online:
                self._reaches_device(name, envelope)

    @rule(place=st.integers(0, 10**6), up=st.booleans())
    def a_message_is_lost(self, place: int, up: bool) -> None:
        messages: list[Any] = self.to_server if up else self.to_device
        if messages:
            messages.pop(place % len(messages))

    @rule()
    def all_that_is_on_its_way_is_lost(self) -> None:
        self._hub()
        self.to_server.clear()
        self.to_device.clear()

    def _reaches_server(self, name: str, report: Report, *, answered: bool) -> None:
        for stored in ingest.reports(self.state, name, [report]):
            if answered:
                self.devices[name].stored(stored)

    def _reaches_device(self, name: str, envelope: bytes) -> None:
        self.devices[name].receive(envelope, self.clock() + self.skew[name])
        self._send(name)

    def _send(self, name: str) -> None:
        if name in self.online:
            self.to_server += [(name, report) for report in self.devices[name].spool]
            del self.to_server[:-200]  # a queue that is full loses its oldest

    # ---- the devices

    @rule(name=st.sampled_from(NAMES), well=st.booleans())
    def a_device_goes_on(self, name: str, well: bool) -> None:
        self.devices[name].step(well=well)
        self._send(name)

    @rule(name=st.sampled_from(NAMES))
    def a_device_loses_power(self, name: str) -> None:
        self.devices[name].crash()
        self._hello(name, PresenceKind.BIRTH)

    @rule(name=st.sampled_from(NAMES))
    def a_device_goes_away(self, name: str) -> None:
        self.online.discard(name)
        ingest.connection(self.state, name, connected=False)

    @rule(name=st.sampled_from(NAMES))
    def a_device_comes_back(self, name: str) -> None:
        self.online.add(name)
        self._hello(name, PresenceKind.BIRTH)

    @precondition(lambda self: self.online)
    @rule()
    def hearts_beat(self) -> None:
        for name in sorted(self.online):
            self._hello(name, PresenceKind.HEARTBEAT)

    def _hello(self, name: str, kind: PresenceKind) -> None:
        if name in self.online:
            ingest.presence(self.state, name, self.devices[name].presence(kind), connected=True)
            self._send(name)

    # ---- what always holds

    @invariant()
    def ends_stick_and_at_most_one_execution_is_open(self) -> None:
        if not hasattr(self, "state"):
            return
        with self.state.database.read() as session:
            rows = session.execute(
                select(models.Execution.id, models.Execution.target_id, models.Execution.state)
            ).all()
        busy = [target for _, target, state in rows if not states.is_terminal(Step(state))]
        assert len(busy) == len(set(busy))
        now = {name: state for name, _, state in rows if states.is_terminal(Step(state))}
        for name, state in self.ended.items():
            assert now[name] == state or (state, now[name]) == (Step.DEPLOYED, Step.ROLLED_BACK)
        self.ended = now

    @invariant()
    def generations_rise_and_devices_serve(self) -> None:
        if not hasattr(self, "state"):
            return
        with self.state.database.read() as session:
            rows = session.execute(select(models.Target.id, models.Target.generation)).all()
        found = {row[0]: row[1] for row in rows}
        for name, generation in found.items():
            assert generation >= self.generations[name]
        self.generations = found
        for device in self.devices.values():
            if device.committed:
                assert device.serving, "after the first install there is always a model"

    # ---- quiet

    def _quiet(self) -> None:
        """Nobody fails any more, everything arrives; one last version goes out."""
        self.skew = dict.fromkeys(NAMES, timedelta())
        for name in NAMES:
            self.a_device_comes_back(name)
            self.hold(name, False)
        self._settle()
        self._check_that_all_came_to_an_end()
        self.deploy(VERSIONS[-1], {**dict.fromkeys(("on_failure",), "pause"), "waves": ["2", "100%"]})
        self.decide(control.approve)
        self._settle()
        with self.state.database.read() as session:
            open_ = session.scalars(
                select(models.Execution).where(models.Execution.finished_at.is_(None))
            ).all()
            deployment = deploy.get(session, "iris")
            rollout = session.get_one(models.Rollout, deployment.rollout_id)
            running = session.scalars(
                select(models.Rollout).where(
                    models.Rollout.state.in_([item.value for item in rollouts.OPEN]),
                    models.Rollout.id != rollout.id,
                )
            ).all()
            wanted = session.get_one(models.Bundle, rollout.bundle_id).digest
            targets = session.scalars(select(models.Target)).all()
        assert [row.state for row in open_] == []
        assert running == [], "only the newest rollout of a deployment can be open"
        assert (rollout.state, rollout.why) == ("succeeded", rollout.why)
        for target in targets:
            device = self.devices[target.id]
            assert target.rollout_id == rollout.id
            assert device.serving == wanted == target.actual_digest
            assert device.spool == [], "every report was stored"

    def _check_that_all_came_to_an_end(self) -> None:
        """Whatever was lost on the way: nothing is under way, and who has deployed serves what it should."""
        with self.state.database.read() as session:
            targets = session.scalars(select(models.Target)).all()
            for target in targets:
                latest = desired.latest_execution(session, target)
                if latest is None:
                    continue
                assert states.is_terminal(Step(latest.state)), (target.id, latest.state)
                if latest.state == Step.DEPLOYED and target.rollout_id is not None:
                    rollout = session.get_one(models.Rollout, target.rollout_id)
                    wanted = session.get_one(models.Bundle, rollout.bundle_id).digest
                    assert self.devices[target.id].serving == wanted == target.actual_digest

    def _settle(self) -> None:
        for _ in range(60):
            self.hearts_beat()
            self._hub()
            while self.to_device or self.to_server:
                while self.to_device:
                    self._reaches_device(*self.to_device.pop(0))
                while self.to_server:
                    self._reaches_server(*self.to_server.pop(0), answered=True)
            for name in NAMES:
                self.devices[name].step(well=True)
                self._send(name)
            self.clock.pass_by(seconds=61)
            with self.state.database.read() as session:
                busy = session.scalars(
                    select(models.Execution.id).where(models.Execution.finished_at.is_(None))
                ).first()
                moving = session.scalars(select(models.Rollout.id).where(models.Rollout.state == "running"))
                if busy is None and moving.first() is None:
                    return


def _settings(examples: int) -> Any:
    return settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def test_a_fleet_comes_to_rest() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(FleetMachine, settings=_settings(12))  # type: ignore[no-untyped-call]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_fleet_comes_to_rest_500_times() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(FleetMachine, settings=_settings(500))  # type: ignore[no-untyped-call]
