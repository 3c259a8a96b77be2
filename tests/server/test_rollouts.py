"""Rollouts on real databases: waves, gates, going back, and devices that are not there."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select

from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Action, Presence, PresenceKind, Report
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import (
    advance,
    control,
    deploy,
    desired,
    enrol,
    fleets,
    ingest,
    membership,
    reconcile,
    revisions,
)
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_bundle, add_target, document

SEQ = itertools.count(1)


def what(bundle: models.Bundle) -> revisions.What:
    return revisions.What(bundle_id=bundle.id, model_uri=f"models:/iris/{bundle.model_version}")


class Fleet:
    """Devices that do what they are told, or not, and tell of it as devices do."""

    def __init__(self, state: State, clock: Clock, count: int, **labels: str) -> None:
        self.state = state
        self.clock = clock
        self.names = [f"robot-{number:02}" for number in range(1, count + 1)]
        for name in self.names:
            add_target(state, name, **labels)
        self.say_hello(self.names)
        self.bundles = {version: add_bundle(state, version) for version in "12345"}
        self.bad: dict[str, set[str]] = {}
        self.trial: dict[str, Any] = {}

    def say_hello(self, names: Sequence[str]) -> None:
        for name in names:
            ingest.presence(self.state, name, Presence(kind=PresenceKind.HEARTBEAT, boot="b"), connected=True)

    def deploy(self, version: str = "1", **rollout: Any) -> None:
        settings = {"rollout": rollout, "trial": self.trial}
        with self.state.database.read() as session:
            known = deploy.find(session, "iris") is not None
        if not known:
            deploy.create(
                self.state,
                "iris",
                where=deploy.Where(targets=tuple(self.names)),
                what=what(self.bundles[version]),
                settings=settings,
                actor="anna",
            )
        else:
            change = deploy.Change(what=what(self.bundles[version]), settings=settings)
            deploy.update(self.state, "iris", change, actor="anna")

    def everywhere(self, version: str = "1") -> None:
        """Version by version as it was before there were waves."""
        self.deploy(version, waves=[])
        self.obey()
        self.tick()
        assert self.rollout().state == "succeeded"

    def open(self) -> dict[str, models.Execution]:
        """What the devices are asked for now, by device."""
        with self.state.database.read() as session:
            found = session.scalars(select(models.Execution).where(models.Execution.finished_at.is_(None)))
            return {row.target_id: row for row in found}

    def obey(self, names: Sequence[str] = ()) -> list[str]:
        """Let those who are asked do it, except who is offline; bad ones fail at a bad version."""
        done = []
        for name, execution in sorted(self.open().items()):
            if names and name not in names:
                continue
            wanted = document(self.state, name).deployments[0]
            version = wanted.model.version if wanted.model is not None else ""
            fails = name in self.bad.get(version, set())
            self.report(name, execution, Step.ROLLED_BACK if fails else Step.DEPLOYED)
            done.append(name)
        return done

    def report(self, name: str, execution: models.Execution, step: Step, **more: Any) -> None:
        reason = {"reason": "trial_errors"} if step is Step.ROLLED_BACK and "reason" not in more else {}
        report = Report(
            boot="b",
            seq=next(SEQ),
            execution=execution.id,
            generation=execution.generation,
            state=step,
            **reason,
            **more,
        )
        ingest.reports(self.state, name, [report])

    def tick(self, **delta: float) -> models.Rollout:
        """Let time pass, and the hub look."""
        if delta:
            self.clock.pass_by(**delta)
        reconcile.time_out(self.state)
        advance.advance_all(self.state)
        return self.rollout()

    def rollout(self, number: int | None = None) -> models.Rollout:
        with self.state.database.read() as session:
            deployment = session.scalars(select(models.Deployment)).one()
            if number is not None:
                return revisions.numbered(session, deployment, number)
            return session.get_one(models.Rollout, deployment.rollout_id)

    def waves(self) -> list[list[str]]:
        with self.state.database.read() as session:
            rows = session.scalars(
                select(models.RolloutMember)
                .where(models.RolloutMember.rollout_id == self.rollout().id)
                .order_by(models.RolloutMember.wave, models.RolloutMember.position)
            ).all()
        found: dict[int, list[str]] = {}
        for row in rows:
            found.setdefault(row.wave, []).append(row.target_id)
        return list(found.values())

    def serving(self) -> dict[str, str]:
        """The version that each device is told to serve."""
        found = {}
        for name in self.names:
            wanted = document(self.state, name).deployments[0]
            found[name] = wanted.model.version if wanted.model is not None else wanted.action.value
        return found

    def audit(self) -> list[str]:
        with self.state.database.read() as session:
            return list(session.scalars(select(models.Audit.action).order_by(models.Audit.id)))


@pytest.fixture
def ten(state: State, clock: Clock) -> Fleet:
    return Fleet(state, clock, 10)


def test_waves_follow_each_other(ten: Fleet) -> None:
    ten.deploy("1", waves=["1", "30%", "100%"], soak_s=60)
    assert [len(wave) for wave in ten.waves()] == [1, 2, 7]
    first = ten.waves()[0]
    assert list(ten.open()) == first, "nobody but the first wave is given anything"
    assert ten.tick().why == "1 devices of wave 1 are on their way"
    ten.obey()
    assert ten.tick().why.startswith("watched until")
    assert not ten.open()
    assert ten.tick(seconds=61).wave == 2
    assert sorted(ten.open()) == sorted(ten.waves()[1])
    ten.obey()
    ten.tick()
    ten.tick(seconds=61)
    assert ten.obey() == sorted(ten.waves()[2])
    ten.tick()
    assert ten.tick(seconds=61).state == "succeeded"
    assert ten.audit() == [
        "rollout.create",
        *["wave.start", "wave.pass"] * 3,
        "rollout.succeed",
    ]


def test_a_wave_that_goes_wrong_halts_the_rollout_and_says_why(ten: Fleet) -> None:
    ten.everywhere("1")
    ten.bad["2"] = set(ten.names)
    ten.deploy("2", waves=["3", "100%"], max_failure_rate=0.4)
    ten.obey()
    rollout = ten.tick()
    assert (rollout.state, rollout.why) == ("paused", "3 of 3 failed, more than 40%")
    with ten.state.database.read() as session:
        wave = session.get_one(models.RolloutWave, (rollout.id, 1))
    assert (wave.state, wave.readings[0]["verdict"], wave.readings[0]["value"]) == ("failed", "fail", 1.0)
    ten.tick(days=3)
    assert not ten.open()
    control.resume(ten.state, "iris", actor="anna", why="a cable")
    assert len(ten.open()) == 7, "those who failed have had their chance; the next wave begins"
    assert ten.rollout().wave == 2


def test_failures_that_were_accepted_do_not_halt_again(ten: Fleet) -> None:
    ten.everywhere("1")
    ten.deploy("2", waves=["5", "100%"], max_failure_rate=0.5)
    ten.bad["2"] = set(ten.waves()[0][:3])
    ten.obey(ten.waves()[0][:4])
    assert ten.tick().state == "running", "three of four is no verdict yet: five ends are needed"
    ten.obey()
    assert ten.tick().state == "paused"
    control.resume(ten.state, "iris", actor="anna", why="known")
    rollout = ten.tick()
    assert (rollout.state, rollout.wave) == ("running", 2)
    with pytest.raises(errors.ConflictError, match="cannot resume"):
        control.resume(ten.state, "iris", actor="anna", why="")


def test_who_gives_up_the_new_version_while_it_soaks_counts_as_failed(ten: Fleet) -> None:
    ten.everywhere("1")
    ten.deploy("2", waves=["2", "100%"], soak_s=600, on_failure="rollback")
    (first, second), executions = sorted(ten.open()), ten.open()
    ten.obey()
    assert ten.tick(minutes=5).state == "running"
    message = "the agent died 3 times within 10 minutes while this model served"
    ten.report(first, executions[first], Step.ROLLED_BACK, reason="crash_loop", message=message)
    ten.report(second, executions[second], Step.FAILED)  # that would be another story: too late
    rollout = ten.tick(minutes=6)
    assert ten.rollout(2).state == "failed"
    assert rollout.reason == "rollout 2 failed: 1 of 2 failed, more than 20%"
    with ten.state.database.read() as session:
        states = {name: session.get_one(models.Execution, executions[name].id).state for name in executions}
    assert states == {first: "rolled_back", second: "deployed"}


def test_a_gate_brings_everybody_back_by_itself(ten: Fleet) -> None:
    ten.everywhere("1")
    ten.bad["2"] = set(ten.names)
    ten.deploy("2", waves=["2", "100%"], on_failure="rollback")
    touched = ten.obey()
    rollout = ten.tick()
    assert ten.rollout(2).state == "failed"
    assert (rollout.number, rollout.returns_to, rollout.takes_back) == (3, 1, 2)
    assert rollout.reason == "rollout 2 failed: 2 of 2 failed, more than 20%"
    assert sorted(ten.open()) == touched, "only who got the new version goes back"
    ten.obey()
    assert ten.tick().state == "succeeded"
    assert set(ten.serving().values()) == {"1"}


def test_without_a_version_before_there_is_nothing_to_go_back_to(ten: Fleet) -> None:
    ten.bad["1"] = set(ten.names)
    ten.deploy("1", on_failure="rollback")
    ten.obey()
    rollout = ten.tick()
    assert rollout.state == "paused"
    assert "no version before" in rollout.why
    with pytest.raises(errors.ConflictError, match="no version before"):
        control.roll_back(ten.state, "iris", None, actor="anna", why="")
    with pytest.raises(errors.ConflictError, match="no version before"):
        control.abort(ten.state, "iris", control.Abort.REVERT, actor="anna", why="")


def test_back_to_any_earlier_rollout(ten: Fleet) -> None:
    for version in "123":
        ten.everywhere(version)
    control.roll_back(ten.state, "iris", 1, actor="anna", why="complaints")
    ten.obey()
    rollout = ten.tick()
    assert (rollout.number, rollout.returns_to, rollout.state) == (4, 1, "succeeded")
    assert rollout.reason == "back to rollout 1: complaints"
    assert set(ten.serving().values()) == {"1"}
    with pytest.raises(errors.ConflictError, match="deployed now"):
        control.roll_back(ten.state, "iris", 1, actor="anna", why="")
    with pytest.raises(errors.NotFoundError, match="no rollout 9"):
        control.roll_back(ten.state, "iris", 9, actor="anna", why="")


def test_a_rollback_unties_the_alias(ten: Fleet) -> None:
    ten.everywhere("1")
    alias = revisions.What(bundle_id=ten.bundles["2"].id, model_uri="models:/iris@best", alias="best")
    deploy.update(ten.state, "iris", deploy.Change(what=alias), actor="anna")
    ten.obey()
    ten.tick()
    control.roll_back(ten.state, "iris", None, actor="anna", why="")
    with ten.state.database.read() as session:
        assert deploy.get(session, "iris").alias == "", "it would bring the bad version again"


def test_abort_and_keep(ten: Fleet) -> None:
    ten.everywhere("1")
    ten.deploy("2", waves=["4", "100%"])
    wave = ten.waves()[0]
    ten.obey(wave[:1])
    ten.report(wave[1], ten.open()[wave[1]], Step.DOWNLOADING)
    rollout = control.abort(ten.state, "iris", control.Abort.KEEP, actor="anna", why="enough")
    assert (rollout.state, rollout.why) == ("aborted", "aborted by anna: enough")
    # Who has it keeps it, who is at it goes on, and the others are told to be what they were.
    wanted = ten.serving()
    assert [wanted[name] for name in wave] == ["2", "2", "1", "1"]
    ten.obey()
    ten.tick(days=1)
    assert not ten.open()


def test_abort_and_revert(ten: Fleet) -> None:
    ten.everywhere("1")
    ten.deploy("2", waves=["4", "100%"])
    ten.obey()
    control.abort(ten.state, "iris", control.Abort.REVERT, actor="anna", why="")
    assert sorted(ten.open()) == sorted(ten.obey())
    assert ten.tick().state == "succeeded"
    assert set(ten.serving().values()) == {"1"}


def test_a_newer_rollout_takes_over(ten: Fleet) -> None:
    ten.everywhere("1")
    ten.deploy("2", waves=["4", "100%"])
    ten.obey()
    ten.deploy("3", waves=[])
    assert ten.rollout(2).state == "superseded"
    ten.obey()
    assert ten.tick().state == "succeeded"
    assert set(ten.serving().values()) == {"3"}
    control.roll_back(ten.state, "iris", None, actor="anna", why="")
    assert ten.rollout().returns_to == 1, "what was superseded half way has not gone well"


def test_pause_and_go_on(ten: Fleet) -> None:
    ten.deploy("1", waves=["2", "100%"])
    control.pause(ten.state, "iris", actor="anna", why="lunch")
    ten.obey()
    rollout = ten.tick(hours=1)
    assert (rollout.state, rollout.why, len(ten.open())) == ("paused", "paused by anna: lunch", 0)
    control.resume(ten.state, "iris", actor="anna", why="")
    assert len(ten.obey()) == 8
    assert ten.tick().state == "succeeded"


def test_somebody_approves_each_wave(ten: Fleet) -> None:
    ten.deploy("1", waves=["2", "100%"], approval=True)
    ten.obey()
    assert ten.tick(hours=5).why == "wave 2 waits for somebody to approve it"
    control.approve(ten.state, "iris", actor="bob", why="looks good")
    assert len(ten.obey()) == 8
    assert ten.tick().state == "succeeded", "the end needs no approval"
    with pytest.raises(errors.ConflictError, match="nothing to approve"):
        control.approve(ten.state, "iris", actor="bob", why="")


def test_so_many_targets_a_minute(ten: Fleet) -> None:
    ten.deploy("1", rate_per_minute=2)
    begun = {0: len(ten.open())}
    for second in range(10, 301, 10):
        ten.tick(seconds=10)
        begun[second] = len(ten.open())
        slots = second * 2 / 60
        assert slots - 1 <= begun[second] <= slots + 1, begun
    assert (begun[0], begun[300]) == (1, 10)


def test_a_start_and_a_maintenance_window(ten: Fleet, clock: Clock) -> None:
    ten.deploy(
        "1",
        start_at="2026-03-03T13:00:00+00:00",
        window_cron="0 14 * * *",
        window_minutes=30,
        window_zone="Europe/Paris",
        rate_per_minute=0.1,
    )
    assert ten.tick().why == "begins at 2026-03-03 13:00:00 UTC"
    ten.tick(minutes=61)
    assert len(ten.open()) == 1, f"two o'clock in Paris is one in UTC: {ten.rollout().why}"
    rollout = ten.tick(hours=1)
    assert rollout.why == "the maintenance window opens at 2026-03-04 13:00:00 UTC"
    assert len(ten.open()) == 1
    ten.tick(hours=23)
    assert len(ten.open()) == 2, "what the closed hours would have allowed is not made up for"


def test_who_is_offline_is_waited_for_a_while(ten: Fleet) -> None:
    ten.deploy("1", waves=["3", "100%"], offline_wait_s=600)
    away = ten.waves()[0][2]
    ten.obey(ten.waves()[0][:2])
    assert ten.tick(minutes=5).wave == 1
    assert ten.tick(minutes=6).wave == 2
    ten.obey(ten.waves()[1])
    assert ten.tick().state == "succeeded"
    assert list(ten.open()) == [away], "it may still come"
    ten.obey([away])
    assert set(ten.serving().values()) == {"1"}


def test_a_device_that_never_returns_and_one_that_does(ten: Fleet) -> None:
    ten.deploy("1")
    lost, late = ten.names[:2]
    ten.obey(ten.names[2:])
    assert ten.tick(hours=1).state == "succeeded", "it has been waited for long enough"
    ten.tick(days=8)
    with ten.state.database.read() as session:
        found = session.scalars(select(models.Execution).where(models.Execution.target_id == lost)).one()
    assert (found.state, found.reason) == ("timed_out", "unreached")
    ten.say_hello([late])
    assert list(ten.open()) == [late]
    ten.obey()
    assert not ten.open()


def test_who_comes_later_follows_the_wave(state: State, clock: Clock) -> None:
    fleet = Fleet(state, clock, 4, site="lyon")
    fleets.create(state, "lyon", selector="site=lyon", targets=(), actor="anna")
    deploy.create(
        state,
        "iris",
        where=deploy.Where(fleet="lyon"),
        what=what(fleet.bundles["1"]),
        settings={"rollout": {"waves": ["1", "100%"]}},
        actor="anna",
    )
    for name in ("robot-90", "robot-91", "robot-92"):
        add_target(state, name, site="lyon" if name != "robot-92" else "paris")
    membership.follow(state)
    assert fleet.waves()[0][1:] == ["robot-90", "robot-91"]
    fleet.tick()
    assert len(fleet.open()) == 3
    fleet.obey()
    fleet.tick()
    fleet.obey()
    assert fleet.tick().state == "succeeded"
    add_target(state, "robot-93", site="lyon")
    membership.follow(state)
    assert list(fleet.open()) == ["robot-93"], "the rollout is over: it gets the model at once"
    with state.database.write() as session:
        session.get_one(models.Target, "robot-01").labels = {"site": "paris"}
    membership.follow(state)
    left = document(state, "robot-01").deployments[0]
    assert left.action is Action.HOLD, "a changed label is no order to stop"
    membership.follow(state)
    assert sorted(fleet.open()) == ["robot-01", "robot-93"]


def test_a_fleet_without_members(state: State, clock: Clock) -> None:
    add_bundle(state)
    fleets.create(state, "moon", selector="site=moon", targets=(), actor="anna")
    with pytest.raises(errors.InvalidError, match="holds no target"):
        deploy.create(
            state,
            "iris",
            where=deploy.Where(fleet="moon"),
            what=revisions.What(bundle_id="bundle-iris-1", model_uri="models:/iris/1"),
            actor="anna",
        )


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (3, [1, 1, 1])])
def test_shares_of_few_devices(state: State, clock: Clock, count: int, sizes: list[int]) -> None:
    fleet = Fleet(state, clock, count)
    fleet.deploy("1", waves=["1", "10%", "50%", "100%"])
    assert [len(wave) for wave in fleet.waves()] == sizes
    for _ in sizes:
        fleet.obey()
        rollout = fleet.tick()
    assert rollout.state == "succeeded"


def test_a_held_target_is_left_out_and_catches_up(ten: Fleet) -> None:
    ten.everywhere("1")
    control.hold(ten.state, "robot-05", actor="anna", why="in repair")
    ten.deploy("2")
    assert len(ten.obey()) == 9
    assert ten.tick().state == "succeeded"
    control.roll_back(ten.state, "iris", 1, actor="anna", why="")
    ten.obey()
    ten.tick()
    ten.deploy("3")
    ten.obey()
    assert ten.serving()["robot-05"] == "1"
    ten.tick()
    control.release(ten.state, "robot-05", actor="anna", why="")
    assert list(ten.open()) == ["robot-05"]
    with pytest.raises(errors.ConflictError, match="not held"):
        control.release(ten.state, "robot-05", actor="anna", why="")
    with pytest.raises(errors.NotFoundError, match="robot-05"):
        control.hold(ten.state, "robot-5", actor="anna", why="")


def test_a_broken_transfer_is_tried_again_and_a_broken_model_is_not(ten: Fleet) -> None:
    ten.deploy("1", retries={"transfer": 2})
    torn, broken = ten.names[:2]
    ten.obey(ten.names[2:])
    ten.report(torn, ten.open()[torn], Step.FAILED, reason="transfer")
    ten.report(broken, ten.open()[broken], Step.FAILED, reason="model")
    assert ten.tick().why == "1 devices of wave 1 are on their way"
    assert not ten.open(), "not at once"
    ten.tick(seconds=31)
    assert list(ten.open()) == [torn]
    ten.report(torn, ten.open()[torn], Step.FAILED, reason="slow")
    ten.tick(seconds=31)
    assert not ten.open(), "each wait is longer"
    ten.tick(seconds=31)
    ten.report(torn, ten.open()[torn], Step.FAILED, reason="transfer")
    rollout = ten.tick(days=1)
    assert (rollout.state, list(ten.open())) == ("succeeded", []), "two of ten is what it puts up with"


def test_a_device_deleted_in_the_middle(ten: Fleet) -> None:
    ten.deploy("1", waves=["2", "100%"])
    gone = ten.waves()[1][0]
    deploy.update(
        ten.state,
        "iris",
        deploy.Change(where=deploy.Where(targets=tuple(set(ten.names) - {gone}))),
        actor="anna",
    )
    enrol.forget(ten.state, gone)
    ten.names.remove(gone)
    ten.obey()
    ten.tick()
    ten.obey()
    assert ten.tick().state == "succeeded"


def test_trials_are_compared_with_the_version_before(ten: Fleet) -> None:
    ten.everywhere("1")
    ten.trial = {"minimum_requests": 10}
    ten.deploy("2", waves=["2", "100%"], max_latency_ratio=1.5, max_error_rate=0.01)
    for name, execution in ten.open().items():
        figures = documents.TrialFigures(requests=100, errors=0, mean_s=0.004, usual_s=0.002)
        ten.report(name, execution, Step.DEPLOYED, trial=figures)
    rollout = ten.tick()
    assert rollout.state == "paused"
    assert rollout.why == "a run takes 2.00 times as long as with the version before, more than 1.5"


def test_who_approves_goes_on_without_evidence(ten: Fleet) -> None:
    ten.trial = {"duration_s": 5}
    ten.deploy("1", waves=["2", "100%"], max_error_rate=0.01)
    ten.obey()
    assert ten.tick().why == ("no trial of this wave has seen a request; who approves it goes on without")
    control.approve(ten.state, "iris", actor="anna", why="nobody asks these two")
    assert len(ten.open()) == 8


def test_nobody_changes_a_deployment_that_is_gone(ten: Fleet) -> None:
    ten.deploy("1", waves=["2", "100%"])
    deploy.delete(ten.state, "iris", keep_serving=True, actor="anna")
    assert ten.rollout().state == "aborted"
    ten.tick(days=1)
    for act in (control.pause, control.resume, control.approve):
        with pytest.raises(errors.NotFoundError, match="no deployment 'iris'"):
            act(ten.state, "iris", actor="anna", why="")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"waves": ["50%", "10%"]}, "waves grow"),
        ({"waves": ["0"]}, "is no wave"),
        ({"waves": ["110%"]}, "is no wave"),
        ({"waves": ["ring canary"]}, "cannot read"),
        ({"window_cron": "soon"}, "is no schedule"),
        ({"window_cron": "0 2 * * *", "window_zone": "Mars"}, "is no time zone"),
        ({"window_minutes": 5}, "needs window_cron"),
        ({"max_error_rate": 0.1}, "there are none"),
        ({"retries": {"luck": 1}}, "no retries for 'luck'"),
    ],
)
def test_what_makes_no_sense_is_refused(ten: Fleet, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.InvalidError, match=said):
        ten.deploy("1", **settings)


def test_a_device_that_comes_back_does_not_wait_for_a_look_at_its_rollout(ten: Fleet) -> None:
    """On PostgreSQL what refers to a locked row waits, and both would wait for each other."""
    ten.deploy("1")
    ten.tick(days=8)
    assert not ten.open()
    with ten.state.database.write() as session:
        if ten.state.database.is_sqlite:
            return  # one writer at a time: nobody waits for two things
        deployment = deploy.get(session, "iris", lock=True)
        session.get_one(models.Rollout, deployment.rollout_id, with_for_update=desired.LOCK)
        thread = threading.Thread(target=ten.say_hello, args=(ten.names[:1],))
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    assert list(ten.open()) == ten.names[:1]
