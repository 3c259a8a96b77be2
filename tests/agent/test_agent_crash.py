"""The power is cut at every named point, and at many again during the recovery: the device always comes
back serving a model, and always ends where its document wants it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.store import crashpoints
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire.documents import Action, DesiredDeployment, Trial
from tests.agent.conftest import AgentProcess, enrol, linear, request, settings, wait_for

Start = Callable[..., AgentProcess]

# Where the recovery itself moves what serves, it is cut as well.
TWICE = ("state.", "point.", "swap.", "load.", "settle.", "remove.", "gc.")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeServer, Path]:
    """A server and the state folder of a device that serves version 2 and keeps version 1."""
    server = FakeServer()
    state_dir = tmp_path_factory.mktemp("crash") / "template"
    enrol(server, state_dir)
    agent = Agent(settings(state_dir, server))
    agent.start()
    for generation in (1, 2):
        server.deploy(generation, {"model.onnx": linear(generation)})
        server.wait_report("deployed", execution=f"e{generation}")
    agent.stop()
    server.offer(None)
    return server, state_dir


def scenario(server: FakeServer, point: str) -> tuple[DesiredDeployment, float | None, str]:
    """The deployment that passes `point`, what is served after it, and how it ends."""
    if point.startswith("remove."):
        remove = DesiredDeployment(id="d1", execution="e3", name="iris", action=Action.REMOVE)
        return remove, None, "deployed"
    if point.startswith("adopt."):
        return server.install(3, {"model.onnx": linear(2)}), 8.0, "deployed"
    if point == "state.rolled_back":
        # Any share of errors is over this limit, so ten requests are enough for a bad end.
        trial = Trial(duration_s=3600, max_error_rate=-1.0)
        return server.install(3, {"model.onnx": linear(3)}, trial=trial), 8.0, "rolled_back"
    return server.install(3, {"model.onnx": linear(3)}), 12.0, "deployed"


# Those of a rotation have their own test, in test_agent_rotation.py.
@pytest.mark.parametrize("point", [item for item in crashpoints.POINTS if not item.startswith("rotate.")])
def test_power_cut(deployed: tuple[FakeServer, Path], tmp_path: Path, agents: Start, point: str) -> None:
    server, template = deployed
    state_dir = tmp_path / "state"
    shutil.copytree(template, state_dir, symlinks=True)
    server.forget()
    deployment, expected, end = scenario(server, point)
    server.offer(server.sign(3, [deployment]))

    def reported() -> bool:
        return any(item.execution == "e3" and item.state == end for item in list(server.reports))

    def drive(agent: AgentProcess) -> bool:
        """Until the process is dead (True) or the deployment has ended."""
        while agent.process.poll() is None:
            try:
                request(f"{agent.url}/infer", [1, 1, 1, 1])
            except (OSError, AssertionError):
                continue
            if reported():
                return agent.process.poll() is not None
        return True

    first = agents(state_dir, env={crashpoints.VARIABLE: point})
    wait_for(lambda: drive(first) and first.process.poll() is not None, what="the crash")
    assert first.process.wait(10) == -signal.SIGKILL
    if point.startswith(TWICE):
        again = agents(state_dir, env={crashpoints.VARIABLE: point})
        if not drive(again):
            again.kill()

    last = agents(state_dir)
    if expected is not None:
        assert wait_for(last.predicts, what="an answer after the restart") in (8.0, 12.0)
    wait_for(lambda: (last.predicts(), reported())[1], what=f"the report {end!r}")
    wait_for(lambda: last.predicts() == expected, what=f"{expected} to be served")
    assert last.stop() == 0


def test_all_points_are_real() -> None:
    """A point that nothing reaches would be a test of nothing."""
    package = Path(crashpoints.__file__).parent.parent
    source = "".join(path.read_text() for path in package.rglob("*.py") if path.name != "crashpoints.py")
    for point in crashpoints.POINTS:
        label, _, place = point.partition(".")
        assert (
            f'reach("{point}")' in source
            or (place in ("before_rename", "after_rename") and f'label="{label}"' in source)
            or label == "state"
        ), point
