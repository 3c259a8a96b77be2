"""A disk that fails at the first, the second, the third … call of an install, and of a start, until none is
left: the device serves what it served, and installs once the disk works again. Real processes, every call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire.states import State, is_terminal
from tests.agent import faulty_disk
from tests.agent.conftest import enrol, linear, request, settings, wait_for
from tests.agent.faulty_disk import FAULTS, Calls, Fault, FaultyDisk
from tests.agent.preloaded import ForkedAgent, Preloaded

# Under load a whole sweep takes a minute or two.
pytestmark = pytest.mark.timeout(900)
SLOW = [pytest.param((fault,), marks=pytest.mark.slow, id=fault.name) for fault in FAULTS]
SWEEPS = pytest.mark.parametrize("faults", [pytest.param(FAULTS, id="in turns"), *SLOW])


class Device:
    """A state folder on a disk that may fail, and the agents that run on it one after the other."""

    def __init__(self, server: FakeServer, disk: FaultyDisk, state_dir: Path, parent: Preloaded) -> None:
        self.server, self.disk, self.state_dir = server, disk, state_dir
        self._parent = parent
        self._generation, self.served = 2, 8.0
        self.start()

    def start(self) -> None:
        log = self.state_dir.with_suffix(".log")
        log.touch()
        self._read = log.stat().st_size
        self.agent = ForkedAgent(self._parent, self.state_dir)

    def said(self) -> str:
        """What this start of the agent has logged."""
        with self.agent.log.open() as log:
            log.seek(self._read)
            return log.read()

    def url(self) -> str:
        """Where the agent answers; empty while it has not said so. Its file may be what cannot be written."""
        found = re.search(r"answers at (http://\S+)", self.said())
        return found[1].rstrip('",') if found else ""

    def has_decided(self) -> bool:
        """Whether the agent answers, or has ended."""
        return bool(self.url()) or self.agent.process.poll() is not None

    def answers(self) -> float | None:
        status, answer = request(f"{self.url()}/infer", [1, 1, 1, 1])
        return answer["outputs"]["y"][0][0] if status == 200 else None

    def over(self) -> bool:
        """Whether the last deployment has ended; the old model or the new one answers all the while."""
        assert self.answers() in (self.served, 4.0 * self._generation), self.said()
        journal = json.loads((self.state_dir / "journal.json").read_text())
        return self._generation in journal["handled"].values()

    def install(self, first: int, fault: Fault) -> tuple[str, bool]:
        """Give it the next version while the disk fails; how that ends, and whether a call has failed."""
        self._generation += 1
        with self.disk.failing(first, fault):
            self.server.deploy(self._generation, {"model.onnx": linear(self._generation)})
            last = first + min(fault.in_a_row, 6) - 1
            wait_for(lambda: self.disk.seen >= last or self.over(), 60.0, f"call {last} of an install")
            came = self.disk.seen >= first
        wait_for(self.over, 60.0, f"the end of e{self._generation}")
        self.served = self.answers() or 0.0

        def reported() -> list[str]:
            states = self.server.states(f"e{self._generation}")
            return [item for item in states if is_terminal(State(item))]

        (end,) = wait_for(reported, what=f"a report of the end of e{self._generation}")
        assert (end == "deployed") == (self.served == 4.0 * self._generation)
        return end, came


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty_disk.build(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def device(library: Path, server: FakeServer, tmp_path: Path, faults: Sequence[Fault]) -> Iterator[Device]:
    """It serves version 2, and keeps version 1."""
    server.poll_s = 0.05
    state_dir = tmp_path / "state"
    enrol(server, state_dir)
    agent = Agent(settings(state_dir, server))
    agent.start()
    for generation in (1, 2):
        server.deploy(generation, {"model.onnx": linear(generation)})
        server.wait_report("deployed", execution=f"e{generation}")
    agent.stop()
    disk = FaultyDisk(state_dir, library, tmp_path / "faults")
    # A child process for each of some hundred installs is left to the long runs.
    words = ["impatient", *(["trusting"] if faults is FAULTS else [])]
    parent = Preloaded(*words, environment=disk.environment)
    made = Device(server, disk, state_dir, parent)
    wait_for(made.url, what="the agent")
    yield made
    made.agent.stop()
    parent.close()


@SWEEPS
def test_whichever_call_of_an_install_fails(device: Device, faults: Sequence[Fault]) -> None:
    ends, untouched = [], 0
    for first in range(1, 2000):
        end, came = device.install(first, faults[first % len(faults)])
        ends.append(end)
        untouched = 0 if came else untouched + 1
        if untouched == len(faults):  # each of them has run out of calls
            break
    assert untouched == len(faults)
    assert len(ends) > 20
    # What can be tried again is, so most installs do not even end; none is a model's fault.
    assert set(ends) <= {"deployed", "failed", "rolled_back"}
    device.agent.stop()
    device.start()
    wait_for(device.url, what="the agent")
    assert device.answers() == device.served


@SWEEPS
def test_whichever_call_of_a_start_fails(device: Device, faults: Sequence[Fault]) -> None:
    """An agent that cannot start says so and ends; what starts it again finds everything as it was."""
    given_up = untouched = 0
    for first in range(1, 2000):
        assert device.agent.stop() == 0
        fault = faults[first % len(faults)]
        with device.disk.failing(first, fault):
            device.start()
            wait_for(
                lambda: device.url() or device.agent.process.poll() is not None, what="an answer or an end"
            )
            came = device.disk.seen >= first
            if device.url():
                assert device.answers() == device.served, f"{fault.name} at {first}: {device.said()}"
        if device.agent.process.poll() is not None:
            assert came
            how = f"{device.agent.process.returncode}, {device.said()}"
            assert fault.calls & Calls.READS, f"{fault.name} at {first} kept it from serving: {how}"
            assert "Traceback" not in device.said(), device.said()
            given_up += 1
            device.start()
            wait_for(device.url, what="the agent")
        assert device.answers() == device.served
        untouched = 0 if came else untouched + 1
        if untouched == len(faults):
            break
    assert untouched == len(faults)
    assert first > 20
    assert given_up < first / 4
