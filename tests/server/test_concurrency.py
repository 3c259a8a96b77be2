"""Several writers at once, on SQLite and on PostgreSQL: one open execution, no generation twice."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy import select

from edgeflow_agent.wire.documents import Presence, PresenceKind
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import deploy, ingest, reconcile
from edgeflow_mlflow.services.state import State
from tests.server.conftest import add_bundle, add_target

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

    def what(number: int) -> deploy.What:
        return deploy.What(bundle_id=bundles[number].id, model_uri=f"models:/iris/{number}")

    deploy.create(state, "iris", where=deploy.Where(targets=names), what=what(0), replace=False, actor="me")

    def change(number: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(ROUNDS):
                deploy.update(
                    state, "iris", where=None, what=what(number), replace=False, reason="x", actor="me"
                )

        return work

    def presence() -> None:
        for number in range(ROUNDS * 3):
            seen = Presence(kind=PresenceKind.BIRTH, boot="b", generation=number * 7)
            ingest.presence(state, names[number % 3], seen, connected=True)

    def hub() -> None:
        for _ in range(ROUNDS):
            for item in reconcile.outgoing(state):
                ingest.offered(state, item.target, item.generation)
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
