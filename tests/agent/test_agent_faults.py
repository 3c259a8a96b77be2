"""A disk that fails at the first, the second, the third … call of an install, until none is left: the device
serves what it served, and installs once the disk works again."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from edgeflow_agent.core import backoff
from edgeflow_agent.inference import trial_load
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.runtime.reporting import Reporter
from edgeflow_agent.store.journal import Entry
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire import states
from tests.agent.conftest import Run, linear, served, wait_for

CALLS = ("open", "fsync", "replace", "unlink", "mkdir", "rmdir", "symlink", "link", "scandir", "chmod")
# One call that fails may be tried again in vain as well.
IN_A_ROW = 2


class Faults:
    """Fails the calls of the deployer's thread from number `first` on, `IN_A_ROW` of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.arm(0, 0)
        for name in CALLS:
            patch.setattr(os, name, self._failing(getattr(os, name)))

    def arm(self, first: int, number: int) -> None:
        self._count, self._first, self._number = 0, first, number

    @property
    def came(self) -> bool:
        """Whether any call has failed."""
        return 0 < self._first <= self._count

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **kwargs: Any) -> Any:
            if self._first and threading.current_thread().name == "edgeflow-deployer":
                self._count += 1
                if self._first <= self._count < self._first + IN_A_ROW:
                    raise OSError(self._number, os.strerror(self._number))
            return call(*args, **kwargs)

        return failing


class Device:
    """One device that is given one model after the other."""

    def __init__(self, server: FakeServer, agent: Agent, patch: pytest.MonkeyPatch) -> None:
        self._server, self._agent = server, agent
        self._generation, self.served = 1, 4.0
        self._ends: dict[str, str] = {}
        step = Reporter.step

        def stepped(reporter: Reporter, entry: Entry, **changes: Any) -> None:
            if states.is_terminal(entry.state):
                self._ends[entry.deployment.execution] = entry.state.value
            step(reporter, entry, **changes)

        patch.setattr(Reporter, "step", stepped)

    def install(self) -> str:
        """How the next version ends. What answers meanwhile is the old model or the new one."""
        self._generation += 1
        execution, new = f"e{self._generation}", float(4 * self._generation)
        deployment = self._server.install(self._generation, {"model.onnx": linear(self._generation)})
        # Not by polling, which would take most of the time.
        assert self._agent._inbox.receive(self._server.sign(self._generation, [deployment]))

        def settled() -> bool:
            assert served(self._agent) in (self.served, new)
            return self._generation in self._agent._deployer.handled.values()

        wait_for(settled, what=f"the end of {execution}")
        if self._ends[execution] == "deployed":
            self.served = new
        assert served(self._agent) == self.served
        return self._ends[execution]


ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
SLOW = [pytest.param((number,), marks=pytest.mark.slow, id=errno.errorcode[number]) for number in ERRORS]


@pytest.mark.parametrize("numbers", [pytest.param(ERRORS, id="in turns"), *SLOW])
def test_whichever_call_fails(
    server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]
) -> None:
    monkeypatch.setattr(backoff, "delay", lambda *_, **__: 0.02)
    # A child process for each of a hundred installs would test nothing more.
    monkeypatch.setattr(trial_load, "trial_load", lambda *_, **__: None)
    agent = run()
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    wait_for(lambda: not agent._deployer.busy, what="the deployment to be settled")
    server.offer(None)
    device = Device(server, agent, monkeypatch)
    ends = []
    with monkeypatch.context() as patch:
        faults = Faults(patch)
        for first in range(1, 1000):
            faults.arm(first, numbers[first % len(numbers)])
            ends.append(device.install())
            came = faults.came
            faults.arm(0, 0)
            if not came:
                break
            if ends[-1] != "deployed":
                assert device.install() == "deployed"
    assert not came
    assert len(ends) > 40
    # What can be tried again is, so most installs do not even end; none is a model's fault.
    assert set(ends) <= {"deployed", "failed", "rolled_back"}
    agent.stop()
    assert served(run()) == device.served
