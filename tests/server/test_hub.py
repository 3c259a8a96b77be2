"""Who is the hub: the lock of a host, the lease of all hosts, and what a hub does that has lost either."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeflow_mlflow import config
from edgeflow_mlflow.broker import port
from edgeflow_mlflow.hub.election import Elector
from edgeflow_mlflow.hub.hub import Hub
from edgeflow_mlflow.services import lease
from edgeflow_mlflow.services.state import State
from tests.harness import until
from tests.server.conftest import Clock, add_target

# ---- the lease


def test_a_lease_that_was_taken_under_the_same_lock_is_free_at_once(state: State, tmp_path: Path) -> None:
    lock = tmp_path / "hub.lock"
    lock.touch()
    mine = lease.identity(lock)
    assert mine is not None
    assert lease.take(state, "robot/1", alone_on=mine) == 1
    assert lease.renew(state, 1, {"mqtt": "mqtt://127.0.0.1:1883"})
    assert lease.take(state, "robot/2", alone_on=lease.identity(lock)) == 2


def test_the_same_host_name_is_not_the_same_lock(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers, a copied machine, and a lock file that was deleted while a hub held it."""
    lock, other = tmp_path / "hub.lock", tmp_path / "other.lock"
    lock.touch()
    other.touch()
    assert lease.take(state, "robot/1", alone_on=lease.identity(lock)) == 1
    assert lease.take(state, "robot/1", alone_on=lease.identity(other)) is None
    boot = tmp_path / "boot_id"
    boot.write_text("another boot of another machine\n")
    monkeypatch.setattr(lease, "_BOOT_ID", boot)
    assert lease.take(state, "robot/1", alone_on=lease.identity(lock)) is None
    boot.unlink()
    assert lease.identity(lock) is None
    assert lease.take(state, "robot/1", alone_on=None) is None


# ---- a hub that has lost its fence


class Broker:
    """Has one device connected, and says so when it is stopped."""

    address = "mqtt://127.0.0.1:1883"

    def __init__(self, handlers: port.Handlers) -> None:
        self._handlers = handlers

    def start(self) -> None:
        self._handlers.on_connect("robot-07")

    def stop(self) -> None:
        self._handlers.on_disconnect("robot-07")

    def publish(self, target: str, kind: Any, payload: bytes) -> bool:
        return False

    def disconnect(self, target: str) -> None:
        pass

    def connected(self) -> frozenset[str]:
        return frozenset({"robot-07"})

    def healthy(self) -> bool:
        return True


def test_a_hub_that_lost_its_fence_ends_without_a_traceback(
    state: State, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    add_target(state, "robot-07")
    fence = lease.take(state, "a/1", alone_on=None)
    assert fence is not None
    hub = Hub(dataclasses.replace(state, database=state.database.fenced(fence)), fence, Broker)
    hub.start()
    assert not hub.stopped.is_set()

    def taken_over() -> bool:
        clock.pass_by(seconds=16)  # again when the hub has just renewed its lease
        return lease.take(state, "b/2", alone_on=None) == 2

    until(taken_over, "the take-over")
    hub.stop()
    # A loop may have met the new fence before the stop, and says so: a warning, and no traceback.
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []
    now = lease.current(state)
    assert now is not None
    assert now.holder == "b/2"


def test_a_hub_whose_fence_is_lost_before_it_begins_stops(state: State, clock: Clock) -> None:
    fence = lease.take(state, "a/1", alone_on=None)
    assert fence is not None
    clock.pass_by(seconds=16)
    lease.take(state, "b/2", alone_on=None)
    hub = Hub(dataclasses.replace(state, database=state.database.fenced(fence)), fence, Broker)
    hub.start()
    assert hub.stopped.is_set()
    hub.stop()


# ---- the election


class Standing(Elector):
    """Its hub is a process that does nothing; each start is written down."""

    def __init__(self, settings: config.Config, tick: Callable[[], None]) -> None:
        super().__init__(settings, tick, tick_s=0.01)
        self.started: list[subprocess.Popen[bytes]] = []

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
        self._child = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=(lock,))
        self.started.append(self._child)
        return self._child


Stand = Callable[[Path, Callable[[], None]], Standing]


@pytest.fixture
def stand() -> Iterator[Stand]:
    made: list[Standing] = []

    def begin(folder: Path, tick: Callable[[], None]) -> Standing:
        elector = Standing(config.load(environment={}, flags={"server.data_dir": str(folder)}), tick)
        made.append(elector)
        elector.start()
        return elector

    yield begin
    for elector in made:
        elector.stop()


def test_a_hub_that_dies_during_a_long_tick_is_started_again(tmp_path: Path, stand: Stand) -> None:
    ticking, go_on = threading.Event(), threading.Event()

    def long_tick() -> None:
        ticking.set()
        go_on.wait(30)

    elector = stand(tmp_path, long_tick)
    assert ticking.wait(10)
    os.kill(elector.started[0].pid, signal.SIGKILL)
    until(lambda: len(elector.started) == 2, "the second hub", 10)
    go_on.set()


def test_only_the_worker_whose_hub_lives_ticks(tmp_path: Path, stand: Stand) -> None:
    first, second = threading.Event(), threading.Event()
    leads = stand(tmp_path, first.set)
    assert first.wait(10)
    waits = stand(tmp_path, second.set)
    assert not second.wait(1)
    assert waits.started == []
    leads.stop()
    assert second.wait(10)


def test_a_folder_that_cannot_be_used_now_is_tried_again(
    tmp_path: Path, stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "not-there-yet"
    elector = stand(folder, lambda: None)
    until(lambda: "try again" in caplog.text, "a word about it", 10)
    folder.mkdir()
    until(lambda: elector.started, "the hub", 10)
