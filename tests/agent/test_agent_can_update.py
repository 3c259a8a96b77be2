"""A new model takes over when the device itself says that now is a moment for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeflow_agent import config, errors
from edgeflow_agent.runtime import asking
from edgeflow_agent.store.journal import Journal
from edgeflow_agent.testing import FakeServer
from tests.agent.conftest import Run, linear, served, wait_for


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that stands for a robot at rest."""
    return tmp_path / "at rest"


def command(gate: Path) -> str:
    return f"test -e '{gate}'"


def waiting(server: FakeServer, execution: str) -> list[str]:
    return [
        item.message
        for item in list(server.reports)
        if (item.execution, item.state) == (execution, "loading") and "waits" in item.message
    ]


def test_the_swap_waits_for_a_yes(
    server: FakeServer, run: Run, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_SAY_EVERY_S", 0.2)
    gate.touch()
    agent = run(can_update=command(gate), can_update_retry_s=0.1)
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    gate.unlink()
    server.deploy(2, {"model.onnx": linear(2)})
    # It says so again and again, so that the server does not take it for lost.
    wait_for(lambda: len(waiting(server, "e2")) >= 3, what="reports of waiting")
    assert "exit code 1" in waiting(server, "e2")[0]
    assert served(agent) == 4.0
    gate.touch()
    server.wait_report("deployed", execution="e2")
    assert served(agent) == 8.0


def test_a_newer_document_ends_the_wait(server: FakeServer, run: Run, gate: Path) -> None:
    agent = run(can_update=command(gate), can_update_retry_s=3600.0)
    server.deploy(1, {"model.onnx": linear(1)})
    wait_for(lambda: waiting(server, "e1"), what="a report of waiting")
    gate.touch()
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("cancelled", execution="e1", reason="superseded")
    server.wait_report("deployed", execution="e2")
    assert served(agent) == 8.0


def test_waiting_survives_restarts_and_deaths_in_it_are_not_the_models(
    server: FakeServer, run: Run, gate: Path
) -> None:
    agent = run(can_update=command(gate), can_update_retry_s=0.1)
    server.deploy(1, {"model.onnx": linear(1)})
    wait_for(lambda: waiting(server, "e1"), what="a report of waiting")
    active = Journal(agent.config.state_dir).record.active
    assert active is not None
    assert (active.state, active.tries) == ("loading", 0)
    agent.stop()
    said = len(waiting(server, "e1"))
    run(can_update=command(gate), can_update_retry_s=0.1)
    wait_for(lambda: len(waiting(server, "e1")) > said, what="a report of waiting")
    gate.touch()
    server.wait_report("deployed", execution="e1")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/nowhere/at/all", "cannot be run"),
        (f"{sys.executable} -c 'import time; time.sleep(3600)'", "did not end within"),
        (f"{sys.executable} -c 'import os; os.kill(os.getpid(), 9)'", "exit code -9"),
    ],
)
def test_whatever_is_no_yes_is_a_no(
    server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch, line: str, why: str
) -> None:
    monkeypatch.setattr(asking, "_TIMEOUT_S", 0.3)
    run(can_update=line, can_update_retry_s=0.1)
    server.deploy(1, {"model.onnx": linear(1)})
    wait_for(lambda: any(why in text for text in waiting(server, "e1")), what="a report of waiting")
    assert "deployed" not in server.states("e1")


def test_a_command_line_that_is_none_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="close every quote"):
        config.load(environ={"EDGEFLOW_AGENT_AGENT_CAN_UPDATE": "test 'x"})
