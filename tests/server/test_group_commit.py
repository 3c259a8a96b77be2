"""Many threads, one commit: together when they come together, and none takes another with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.engine import FenceLostError
from edgeflow_mlflow.db.group_commit import GroupCommit
from edgeflow_mlflow.services import lease
from edgeflow_mlflow.services.state import State
from tests.harness import until
from tests.server.conftest import Clock, add_target

NAMES = [f"robot-{number:02}" for number in range(12)]


class Group:
    """A group commit whose first transaction waits until everybody else has queued up."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.sizes: list[int] = []
        self._done = 0
        self.gate = threading.Event()
        self.group = GroupCommit(self.write, not_again=FenceLostError)
        self.raised: dict[str, BaseException] = {}
        for name in NAMES:
            add_target(state, name)

    @contextmanager
    def write(self) -> Iterator[Session]:
        with self.state.database.write() as session:
            self._done = 0
            yield session
        self.sizes.append(self._done)

    def counted(self, work: Callable[[Session], object]) -> Callable[[Session], object]:
        def do(session: Session) -> object:
            result = work(session)
            self._done += 1
            return result

        return do

    def all(self, works: dict[str, Callable[[Session], object]]) -> dict[str, object]:
        """Commit a slow change first, and all of these at once behind it; what each got back."""
        results: dict[str, object] = {}

        def run(name: str, work: Callable[[Session], object]) -> None:
            try:
                results[name] = self.group.commit(name, work)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.raised[name] = error

        began = threading.Event()

        def slow(session: Session) -> None:
            began.set()
            assert self.gate.wait(30)

        first = threading.Thread(target=run, args=("nobody", slow))
        first.start()
        assert began.wait(30)
        threads = [
            threading.Thread(target=run, args=(name, self.counted(work))) for name, work in works.items()
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(self.group._waiting) == len(works), "everybody to queue up")
        self.gate.set()
        for thread in (first, *threads):
            thread.join()
        results.pop("nobody", None)
        return results

    def online(self) -> list[str]:
        with self.state.database.read() as session:
            query = (
                select(models.Target.id).where(models.Target.connected.is_(True)).order_by(models.Target.id)
            )
            return list(session.scalars(query))


def connects(name: str) -> Callable[[Session], str]:
    def work(session: Session) -> str:
        session.get_one(models.Target, name).connected = True
        return name.upper()

    return work


@pytest.fixture
def group(state: State) -> Group:
    return Group(state)


def test_those_who_wait_together_are_committed_together(group: Group) -> None:
    results = group.all({name: connects(name) for name in NAMES})
    assert results == {name: name.upper() for name in NAMES}
    assert group.sizes == [0, len(NAMES)]
    assert group.online() == NAMES


def test_what_one_raises_undoes_its_own_change_alone(group: Group) -> None:
    def fails(session: Session) -> None:
        connects(NAMES[3])(session)
        session.flush()
        raise KeyError("not this one")

    works = {name: connects(name) for name in NAMES} | {NAMES[3]: fails}
    assert len(group.all(works)) == len(NAMES) - 1
    assert isinstance(group.raised[NAMES[3]], KeyError)
    assert group.online() == [name for name in NAMES if name != NAMES[3]]
    assert group.sizes == [0, len(NAMES) - 1]


def test_one_that_spoils_the_transaction_takes_no_other_with_it(group: Group) -> None:
    def spoils(session: Session) -> None:
        session.execute(text("ROLLBACK"))
        session.execute(text("SELECT * FROM no_such_table"))

    works = {name: connects(name) for name in NAMES} | {NAMES[3]: spoils}
    assert len(group.all(works)) == len(NAMES) - 1
    assert list(group.raised) == [NAMES[3]]
    assert group.online() == [name for name in NAMES if name != NAMES[3]]


def test_a_row_that_somebody_else_wrote_at_this_moment_is_looked_for_again(group: Group) -> None:
    looked = []

    def writes_once(session: Session) -> str:
        looked.append(1)
        if len(looked) == 1:  # what a concurrent insert does to who looked before it
            session.add(models.Target(id=NAMES[0], labels={}, created_at=group.state.now()))
            session.flush()
        return "known"

    works = {name: connects(name) for name in NAMES} | {NAMES[3]: writes_once}
    assert group.all(works)[NAMES[3]] == "known"
    assert group.raised == {}
    assert len(looked) == 2

    def always(session: Session) -> None:
        session.add(models.Target(id=NAMES[0], labels={}, created_at=group.state.now()))

    with pytest.raises(IntegrityError):
        group.group.commit(NAMES[1], always)


def test_a_hub_that_lost_its_fence_writes_for_nobody(state: State, clock: Clock) -> None:
    for name in NAMES:
        add_target(state, name)
    fence = lease.take(state, "a/1", alone_on=None)
    assert fence is not None
    fenced = state.database.fenced(fence)
    assert fenced.change(NAMES[0], connects(NAMES[0])) == NAMES[0].upper()
    clock.pass_by(seconds=16)
    assert lease.take(state, "b/2", alone_on=None)
    lost = []

    def run(name: str) -> None:
        try:
            fenced.change(name, connects(name))
        except FenceLostError:
            lost.append(name)

    threads = [threading.Thread(target=run, args=(name,)) for name in NAMES[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lost) == NAMES[1:]
    assert state.database.change(NAMES[1], connects(NAMES[1])) == NAMES[1].upper()
    with state.database.read() as session:
        assert len(list(session.scalars(select(models.Target).where(models.Target.connected.is_(True))))) == 2


def test_a_database_that_is_locked_is_waited_for_once(group: Group) -> None:
    write, tries = group.write, []

    @contextmanager
    def locked() -> Iterator[Session]:
        tries.append(1)
        if len(tries) > 1:  # the slow first one gets in
            raise OperationalError("BEGIN IMMEDIATE", {}, Exception("database is locked"))
        with write() as session:
            yield session

    group.group = GroupCommit(locked, not_again=FenceLostError)
    assert group.all({name: connects(name) for name in NAMES}) == {}
    assert len(tries) == 2
    assert {type(error) for error in group.raised.values()} == {OperationalError}
    assert group.online() == []


def test_many_threads_for_a_while_lose_nothing(state: State) -> None:
    for name in NAMES:
        add_target(state, name)

    def count(name: str) -> None:
        def work(session: Session) -> None:
            target = session.get_one(models.Target, name)
            target.actual_generation += 1

        for _ in range(20):
            state.database.change(name, work)

    threads = [threading.Thread(target=count, args=(name,)) for name in NAMES for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with state.database.read() as session:
        assert set(session.scalars(select(models.Target.actual_generation))) == {40}
