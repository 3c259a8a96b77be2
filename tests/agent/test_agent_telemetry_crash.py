"""An agent that is killed again and again while it tells what it sees: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire import telemetry
from edgeflow_agent.wire.documents import Stored
from tests.agent.conftest import AgentProcess, enrol, linear, request, wait_for

Agents = Callable[..., AgentProcess]
FAST = {
    "EDGEFLOW_AGENT_TELEMETRY_WINDOW_S": "0.05",
    "EDGEFLOW_AGENT_TELEMETRY_LEARN": "50",
    "EDGEFLOW_AGENT_SERVER_RESEND_S": "0.1",
}


class Forgetful(FakeServer):
    """Stores what it gets, and never says so the first time, and later only often."""

    received: int = 0
    silent: float = 0.5

    def store_window(self, packed: bytes) -> Stored:
        known = len(self.windows)
        self.received += 1
        stored = super().store_window(packed)
        if len(self.windows) > known or random.random() < self.silent:
            return Stored(boot=stored.boot, seqs=())
        return stored


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_lose_no_window_and_send_none_under_another_number(
    kills: int, tmp_path: Path, agents: Agents
) -> None:
    server = Forgetful()
    state_dir = tmp_path / "state"
    enrol(server, state_dir)
    chance = random.Random(kills)
    sent = 0
    server.deploy(1, {"model.onnx": linear(1)})
    try:
        for number in range(kills):
            (state_dir / "lives.json").unlink(missing_ok=True)  # it did not die of its model
            agent = agents(state_dir, env=FAST)
            if not number:
                server.wait_report("deployed", execution="e1")
            url = agent.url
            killer = threading.Timer(chance.uniform(0.0, 0.6), agent.process.kill)
            killer.start()
            with contextlib.suppress(OSError):
                while agent.process.poll() is None:
                    sent += request(f"{url}/infer", [1, 1, 1, 1])[0] == 200
                    time.sleep(0.001)
            agent.process.wait(20)
            killer.cancel()
        (state_dir / "lives.json").unlink(missing_ok=True)
        server.silent = 0.0
        last = agents(state_dir, env=FAST | {"EDGEFLOW_AGENT_TELEMETRY_WINDOW_S": "3600"})
        wait_for(lambda: "edgeflow_telemetry_spool_pending 0\n" in _metrics(last), 60)
        assert last.stop() == 0
    finally:
        server.stop()
    windows = list(server.windows)
    assert len({item.boot for item in windows}) == 1
    # Every number that was ever given came, once, and nothing was counted as lost.
    assert sorted(item.seq for item in windows) == list(range(1, len(windows) + 1))
    assert all(item.dropped == 0 for item in windows)
    assert server.received >= 2 * len(windows) > 0, "the server was silent, and heard windows again"
    # A kill takes the window that is open with it, and what was in it, and no more.
    told = sum(item.requests.ok for item in windows)
    assert 0 < told <= sent + kills
    assert all(telemetry.unpack(telemetry.pack(item)) == item for item in windows)


def _metrics(agent: AgentProcess) -> str:
    import urllib.request

    with urllib.request.urlopen(f"{agent.url}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
