"""Several writers at once, on SQLite and on PostgreSQL: one open execution, no generation twice."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import select

from edgeflow_agent.wire.documents import Presence, PresenceKind, Report
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import deploy, ingest, reconcile, revisions
from edgeflow_mlflow.services.state import State
from tests.server.conftest import add_bundle, add_target, document

ROUNDS = 12


def at_once(*works: Callable[[], None]) -> list[BaseException]:
    """Run all of them together; what they raised."""
    raised: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        gate.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_changes_presence_and_the_clock_together(state: State) -> None:
    names = ("robot-01", "robot-02", "robot-03")
    for name in names:
        add_target(state, name)
    bundles = [add_bundle(state, str(number)) for number in (1, 2)]

    def what(number: int) -> revisions.What:
        return revisions.What(bundle_id=bundles[number].id, model_uri=f"models:/iris/{number}")

    deploy.create(state, "iris", where=deploy.Where(targets=names), what=what(0), replace=False, actor="me")

    def change(number: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(ROUNDS):
                deploy.update(state, "iris", deploy.Change(what=what(number)), actor="me")

        return work

    def presence() -> None:
        for number in range(ROUNDS * 3):
            seen = Presence(kind=PresenceKind.BIRTH, boot="b", generation=number * 7)
            ingest.presence(state, names[number % 3], seen, connected=True)

    def hub() -> None:
        for _ in range(ROUNDS):
            for item in reconcile.outgoing(state):
                ingest.offered(state, {item.target: item.generation})
            reconcile.time_out(state)

    assert at_once(change(0), change(1), presence, hub) == []
    with state.database.read() as session:
        executions = session.scalars(select(models.Execution)).all()
        rollouts = session.scalars(select(models.Rollout.number)).all()
        targets = session.scalars(select(models.Target)).all()
    assert sorted(rollouts) == list(range(1, 2 * ROUNDS + 2))
    for target in targets:
        mine = [item for item in executions if item.target_id == target.id]
        assert len({item.generation for item in mine}) == len(mine)
        (last,) = [item for item in mine if item.finished_at is None]
        assert last.generation == max(item.generation for item in mine) == target.generation


def one_rollout(state: State, name: str, bundle: models.Bundle, target: str) -> models.Execution:
    what = revisions.What(bundle_id=bundle.id, model_uri="models:/iris/1")
    deploy.create(state, name, where=deploy.Where(targets=(target,)), what=what, actor="me")
    with state.database.read() as session:
        return session.scalars(select(models.Execution).where(models.Execution.target_id == target)).one()


def test_a_free_target_goes_to_one_of_two(state: State) -> None:
    bundle = add_bundle(state)
    for number in range(ROUNDS):
        target = f"robot-{number}"
        add_target(state, target)

        def take(name: str, target: str = target) -> Callable[[], None]:
            def work() -> None:
                one_rollout(state, name, bundle, target)

            return work

        (refused,) = at_once(take(f"left-{number}"), take(f"right-{number}"))
        assert isinstance(refused, errors.ConflictError), refused


def test_signing_again_never_brings_back_what_was_replaced(state: State) -> None:
    later = dataclasses.replace(state, now=lambda: state.now() + timedelta(days=4))
    add_target(state, "robot-01")
    one_rollout(state, "iris", add_bundle(state), "robot-01")

    def change() -> None:
        for number in range(ROUNDS):
            settings = {"trial": {"duration_s": float(number + 1)}}
            deploy.update(state, "iris", deploy.Change(settings=settings), actor="me")

    def hub() -> None:
        for _ in range(ROUNDS * 3):
            reconcile.reissue_aging(later)

    assert at_once(change, hub) == []
    with state.database.read() as session:
        target = session.get_one(models.Target, "robot-01")
        newest = session.scalars(select(models.Execution).where(models.Execution.finished_at.is_(None))).one()
    found = document(state, "robot-01")
    assert (found.generation, found.deployments[0].execution) == (target.generation, newest.id)
    assert found.deployments[0].trial.duration_s == ROUNDS


def test_an_end_is_not_lost_beside_the_note_that_it_was_offered(state: State) -> None:
    bundle = add_bundle(state)
    for number in range(ROUNDS):
        target = f"robot-{number}"
        add_target(state, target)
        execution = one_rollout(state, f"iris-{number}", bundle, target)
        report = Report(
            boot="b", seq=1, execution=execution.id, generation=execution.generation, state=Step.DEPLOYED
        )
        proof = Presence(
            kind=PresenceKind.HEARTBEAT,
            boot="b",
            generation=execution.generation,
            execution=execution.id,
            digest=bundle.digest,
            serving=True,
        )

        def says(target: str = target, report: Report = report) -> None:
            ingest.reports(state, target, [report])

        def shows(target: str = target, proof: Presence = proof) -> None:
            ingest.presence(state, target, proof, connected=True)

        def offers(target: str = target, generation: int = execution.generation) -> None:
            ingest.offered(state, {target: generation})

        assert at_once(says if number % 2 else shows, offers) == []
        with state.database.read() as session:
            assert session.get_one(models.Execution, execution.id).state == "deployed"
