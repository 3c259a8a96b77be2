"""A committed model that keeps killing the agent is given up for the one before, without a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent.core import crash_loop
from edgeflow_agent.core.crash_loop import DEATHS, WITHIN_S, Life, Moment
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.store.journal import Journal
from edgeflow_agent.store.lives import LivesFile
from edgeflow_agent.testing import FakeServer
from tests.agent.conftest import AgentProcess, Run, linear, served, wait_for
from tests.agent.test_agent_crash import kill_in_the_past

Start = Callable[..., AgentProcess]


def looping(*starts: tuple[float, str, bool], machine: str = "m") -> bool:
    """Whether the last start finds a loop. Each: when, what served until the next one, cleanly stopped."""
    lives: tuple[Life, ...] = ()
    before = ""
    for seconds, release, stopped in starts:
        lives = crash_loop.begun(lives, Moment(machine=machine, seconds=seconds), before)
        if stopped:
            lives = crash_loop.ended(lives)
        before = release
    return crash_loop.is_looping(lives, Moment(machine=machine, seconds=starts[-1][0]), starts[-1][1])


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([(0, "a", False)], False),
        ([(0, "a", False), (1, "a", False), (2, "a", False)], False),
        ([(0, "a", False), (1, "a", False), (2, "a", False), (3, "a", False)], True),
        # It ran for a day before the first death: found out at the start after it.
        ([(0, "a", False), (86400, "a", False), (86401, "a", False), (86402, "a", False)], True),
        # The third death within ten minutes of the first, and a moment later.
        ([(0, "a", False), (1, "a", False), (300, "a", False), (601, "a", False)], True),
        ([(0, "a", False), (1, "a", False), (300, "a", False), (602, "a", False)], False),
        # A clean stop is no death.
        ([(0, "a", False), (1, "a", True), (2, "a", False), (3, "a", False)], False),
        ([(0, "a", True), (1, "a", True), (2, "a", True), (3, "a", True)], False),
        # Deaths of another model, of none, and of one that its own deployment judges.
        ([(0, "b", False), (1, "a", False), (2, "a", False), (3, "a", False)], False),
        ([(0, "", False), (1, "", False), (2, "", False), (3, "", False)], False),
    ],
)
def test_what_is_a_loop(starts: list[tuple[float, str, bool]], expected: bool) -> None:
    assert looping(*starts) is expected


def test_power_cuts_of_the_machine_are_no_deaths_of_the_agent() -> None:
    """A device without a clock wakes up at the same moment every time."""
    lives: tuple[Life, ...] = ()
    for number in range(9):
        now = Moment(machine=f"m{number}", seconds=10)
        lives = crash_loop.begun(lives, now, "a")
        assert not crash_loop.is_looping(lives, now, "a")


@given(st.lists(st.tuples(st.floats(0, 1000), st.booleans()), max_size=12))
def test_only_deaths_make_a_loop_and_few_lives_are_kept(steps: list[tuple[float, bool]]) -> None:
    lives: tuple[Life, ...] = ()
    seconds, deaths, alive = 0.0, [], False
    for gap, stopped in steps:
        seconds += gap
        if alive:
            deaths.append(seconds)
        now = Moment(machine="m", seconds=seconds)
        lives = crash_loop.begun(lives, now, "a")
        recent = [death for death in deaths if seconds - death <= WITHIN_S]
        if len(recent) < DEATHS:
            assert not crash_loop.is_looping(lives, now, "a")
        if len(deaths) >= DEATHS and all(not item.stopped for item in lives):
            assert crash_loop.is_looping(lives, now, "a") == (len(recent) >= DEATHS)
        alive = not stopped
        if stopped:
            lives = crash_loop.ended(lives)
        assert len(lives) <= DEATHS + 1


@pytest.fixture
def twice(server: FakeServer, serving: Agent) -> Path:
    """The folder of a stopped agent that serves version 2 and keeps version 1."""
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")
    wait_for(lambda: not serving._deployer.busy, what="the deployment to be settled")
    serving.stop()
    return serving.config.state_dir


def test_three_deaths_bring_the_model_before_back(server: FakeServer, twice: Path, agents: Start) -> None:
    server.fail = 503  # nobody is asked
    for _ in range(3):
        agent = agents(twice)
        assert wait_for(agent.predicts) == 8.0
        agent.kill()
    agent = agents(twice)
    assert wait_for(agent.predicts) == 4.0
    server.fail = 0
    report = server.wait_report("rolled_back", execution="e2", reason="crash_loop")
    assert (report.generation, "version 1 serves again" in report.message) == (2, True)
    wait_for(lambda: server.presence and server.presence[-1].execution == "e1", what="the presence")
    # The document that brought the model is still there, and changes nothing; nor do further deaths.
    asked = len(server.requests)
    wait_for(lambda: any(path.endswith("/desired") for _, path, _ in server.requests[asked:]), what="a poll")
    for _ in range(4):
        assert wait_for(agent.predicts) == 4.0
        agent.kill()
        agent = agents(twice)
    assert wait_for(agent.predicts) == 4.0
    assert agent.stop() == 0
    assert [item.execution for item in server.reports if item.reason == "crash_loop"] == ["e2"]


def test_clean_stops_and_failed_starts_are_no_deaths(
    server: FakeServer, twice: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        run().stop()

    def fail(self: Agent) -> None:
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr("edgeflow_agent.runtime.executor.Executor.boot", fail)
        for _ in range(5):
            with pytest.raises(RuntimeError):
                run()
    assert served(run()) == 8.0


def test_without_a_release_before_it_goes_on(serving: Agent, run: Run) -> None:
    serving.stop()
    kill_in_the_past(serving.config.state_dir, 5)
    assert served(run()) == 4.0


def test_a_damaged_release_is_not_gone_back_to(twice: Path, run: Run) -> None:
    for path in (twice / "previous" / "files").iterdir():
        path.chmod(0o600)
        path.write_bytes(b"damaged")
    kill_in_the_past(twice, 4)
    assert served(run()) == 8.0


def test_the_same_document_under_another_key_does_not_bring_it_back(
    server: FakeServer, twice: Path, run: Run
) -> None:
    kill_in_the_past(twice, 4)
    record = Journal(twice).record
    Journal(twice).write(msgspec.structs.replace(record, handled={}))
    (twice / "ratchet.json").unlink(missing_ok=True)
    agent = run()
    server.wait_report("rejected", execution="e2", reason="crash_loop")
    assert served(agent) == 4.0
    # A newer one is a new wish, and is judged anew.
    server.deploy(3, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e3")
    assert served(agent) == 8.0
    wait_for(lambda: not agent._deployer.busy, what="the deployment to be settled")
    agent.stop()
    kill_in_the_past(twice, 2)
    assert served(run()) == 8.0


def test_a_full_disk_at_a_stop_is_no_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LivesFile(tmp_path)
    life = Life(started=Moment(machine="m", seconds=1))
    file.write_lives((life,))
    assert LivesFile(tmp_path).lives == (life,)
    (tmp_path / ".lives.json.new").mkdir()  # in the way
    with pytest.raises(OSError, match=r"lives\.json"):
        file.write_lives((dataclasses.replace(life, stopped=True),))
    file.forget_lives()
    assert LivesFile(tmp_path).lives == ()
    (tmp_path / "lives.json").write_bytes(b"{")
    assert LivesFile(tmp_path).lives == ()
