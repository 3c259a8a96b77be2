"""The power is cut at every named point, and again while the device recovers from that: it always comes back
serving a model, and always ends where its document wants it."""

from __future__ import annotations

import ast
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeflow_agent.core import machine
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.runtime.crash_guard import CrashGuard
from edgeflow_agent.runtime.reporting import Reporter
from edgeflow_agent.store import crashpoints
from edgeflow_agent.store.blobs import BlobStore
from edgeflow_agent.store.lives import LivesFile
from edgeflow_agent.store.releases import ReleaseStore
from edgeflow_agent.store.spool import of_reports
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire.documents import Action, DesiredDeployment, Trial
from tests.agent.conftest import enrol, linear, request, settings, wait_for
from tests.agent.preloaded import ForkedAgent, Preloaded

# Those of a rotation have their own test, in test_agent_rotation.py.
POINTS = [item for item in crashpoints.POINTS if not item.startswith("rotate.")]
# Where the first cut is made when recovering from one at the point itself does not pass the point again.
EARLIER = ("state.accepted", "journal.before_rename", "lives.before_rename")


@pytest.fixture(scope="module")
def preloaded() -> Iterator[Preloaded]:
    parent = Preloaded()
    yield parent
    parent.close()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeServer, Path]]:
    """A server and the state folder of a device that serves version 2 and keeps version 1."""
    server = FakeServer(poll_s=0.05)
    state_dir = tmp_path_factory.mktemp("crash") / "template"
    enrol(server, state_dir)
    agent = Agent(settings(state_dir, server))
    agent.start()
    for generation in (1, 2):
        server.deploy(generation, {"model.onnx": linear(generation)})
        server.wait_report("deployed", execution=f"e{generation}")
    agent.stop()
    server.offer(None)
    yield server, state_dir
    server.stop()


class Story(NamedTuple):
    """A deployment that passes a point: what is served in the end (None: nothing), which report tells that it
    is over, and what comes when the first deployment is on trial."""

    deployment: DesiredDeployment | None
    served: float | None
    execution: str = "e3"
    end: str = "deployed"
    then: DesiredDeployment | None = None


def story(server: FakeServer, point: str) -> Story:
    label = point.partition(".")[0]
    if label == "remove":
        remove = DesiredDeployment(id="d1", execution="e3", name="iris", action=Action.REMOVE)
        return Story(remove, None)
    if label == "adopt":
        return Story(server.install(3, {"model.onnx": linear(2)}), 8.0)
    if label in ("fall", "back"):
        # The model that serves has killed the agent three times: nothing needs to be asked of the device.
        return Story(None, 4.0, "e2", "rolled_back")
    if point == "state.failed":
        return Story(server.install(3, {"model.onnx": b"no model"}), 8.0, end="failed")
    if point == "state.rolled_back":
        # Any share of errors is over this limit, so ten requests are enough for a bad end.
        trial = Trial(duration_s=3600, max_error_rate=-1.0)
        return Story(server.install(3, {"model.onnx": linear(3)}, trial=trial), 8.0, end="rolled_back")
    if point == "state.cancelled":
        first = server.install(3, {"model.onnx": linear(3)}, trial=Trial(duration_s=3600))
        return Story(first, 16.0, end="cancelled", then=server.install(4, {"model.onnx": linear(4)}))
    return Story(server.install(3, {"model.onnx": linear(3)}), 12.0)


def kill_in_the_past(state_dir: Path, times: int) -> None:
    """As if the agent had died so often just now, while what is committed served."""
    spool = of_reports(state_dir / "spool.db", max_bytes=10**6)
    guard = CrashGuard(
        LivesFile(state_dir),
        ReleaseStore(state_dir, BlobStore(state_dir)),
        Reporter(spool, lambda: None),
    )
    for _ in range(times):
        guard.begin(None)
    spool.close()


class Device:
    """One device that lives through a story, as often as it is killed."""

    def __init__(self, parent: Preloaded, server: FakeServer, template: Path, state_dir: Path) -> None:
        self._parent = parent
        self._server = server
        self._state_dir = state_dir
        shutil.rmtree(state_dir, ignore_errors=True)
        shutil.copytree(template, state_dir, symlinks=True)
        server.forget()
        server.presence.clear()

    def follow(self, told: Story) -> None:
        self.story = told
        # A crash loop is what a start finds: of three lives before it, none was asked to end.
        if told.deployment is None:
            kill_in_the_past(self._state_dir, 3)
            self._server.offer(None)
        else:
            self._server.offer(self._server.sign(3, [told.deployment]))

    def start(self, point: str = "") -> ForkedAgent:
        env = {crashpoints.VARIABLE: point} if point else {}
        return ForkedAgent(self._parent, self._state_dir, env=env)

    def is_over(self) -> bool:
        told = self.story
        if told.then is not None and "trial" in self._server.states("e3"):
            self._server.offer(self._server.sign(4, [told.then]))
            self.story = told._replace(then=None)
        return told.end in self._server.states(told.execution)

    def is_settled(self) -> bool:
        """Whether the device has said after the end that it is done: it passes no further point."""
        wanted = 2 if self.story.deployment is None else 3
        return any(item.generation >= wanted for item in list(self._server.presence))

    def dies_at(self, point: str) -> bool:
        """Let it run until it is dead (True) or the story is over."""
        agent = self.start(point)
        self._server.presence.clear()
        while agent.process.poll() is None:
            try:
                request(f"{agent.url}/infer", [1, 1, 1, 1])
            except (OSError, AssertionError):
                continue
            if self.is_over() and self.is_settled():
                agent.kill()
                return False
        assert agent.process.wait() == -signal.SIGKILL, agent.log.read_text()[-3000:]
        return True

    def ends_well(self) -> None:
        """Nobody interferes any more: it serves at once, and ends where it should."""
        last, expected = self.start(), self.story.served
        try:
            if expected is not None:
                assert wait_for(last.predicts, what="an answer after the restart") in (4.0, 8.0, 12.0, 16.0)
            wait_for(lambda: (last.predicts(), self.is_over())[1], what=f"the report {self.story.end!r}")
            wait_for(lambda: last.predicts() == expected, what=f"{expected} to be served")
            assert last.stop() == 0
        except BaseException:
            last.kill()
            raise


@pytest.mark.parametrize("point", POINTS)
def test_power_cut(
    deployed: tuple[FakeServer, Path], preloaded: Preloaded, tmp_path: Path, point: str
) -> None:
    server, template = deployed
    device = Device(preloaded, server, template, tmp_path / "state")
    device.follow(story(server, point))
    assert device.dies_at(point), "the first run does not pass this point"
    again = device.dies_at(point)
    device.ends_well()
    if not again:
        # Only a recovery from something earlier passes it.
        for first in EARLIER:
            device = Device(preloaded, server, template, tmp_path / "state")
            device.follow(story(server, point))
            if device.dies_at(first) and device.dies_at(point):
                again = True
                break
        device.ends_well()
    assert again, "no recovery passes this point"


@pytest.mark.slow
@pytest.mark.parametrize("first", POINTS)
def test_two_power_cuts(
    deployed: tuple[FakeServer, Path], preloaded: Preloaded, tmp_path: Path, first: str
) -> None:
    """Some other point after each, as far as one deployment passes both."""
    server, template = deployed
    for second in random.Random(first).sample(POINTS, 6):
        device = Device(preloaded, server, template, tmp_path / "state")
        device.follow(story(server, first))
        assert device.dies_at(first)
        device.dies_at(second)
        device.ends_well()


def points_in_the_code() -> set[str]:
    """Every name that `crashpoints.reach` can be called with, read from the code that calls it."""
    found: set[str] = set()
    package = Path(crashpoints.__file__).parent.parent
    for path in package.rglob("*.py"):
        if path.name == "crashpoints.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute) and node.func.attr == "reach":
                found |= names_of(node.args[0])
            for keyword in node.keywords:
                if keyword.arg == "label" and isinstance(keyword.value, ast.Constant):
                    found |= {f"{keyword.value.value}.{place}_rename" for place in ("before", "after")}
    return found


def names_of(argument: ast.expr) -> set[str]:
    if isinstance(argument, ast.Constant):
        return {str(argument.value)}
    text = ast.unparse(argument)
    if text.startswith("f'state."):
        return {f"state.{step.state.value}" for step in machine.TABLE.values()}
    # Inside `durable.replace`: its callers' labels are looked at.
    assert text.startswith("f'{label}."), f"a point whose name no test knows: {text}"
    return set()


def test_every_point_of_the_code_is_cut_at() -> None:
    """A new point comes into POINTS, and thereby under the tests above; one that nothing reaches goes."""
    assert points_in_the_code() == set(crashpoints.POINTS)
    assert len(set(crashpoints.POINTS)) == len(crashpoints.POINTS)
