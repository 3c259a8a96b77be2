"""A real server that is killed again and again while devices hand over windows: nothing that it confirmed is
lost, and nothing is stored twice."""

from __future__ import annotations

import base64
import collections
import contextlib
import http.client
import random
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgeflow_agent.wire import telemetry
from edgeflow_agent.wire.sketches import NumericRecord, Sparse
from edgeflow_mlflow.api import records
from tests.harness import Agent, Server, request

DEVICES = 4


class Sender(threading.Thread):
    """Hands over windows for ever, each until it is confirmed; repeats some that were."""

    def __init__(self, server: Server, agent: Agent, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url = f"{server.api}/device/telemetry"
        self._credential = _credential(agent)
        self._stop_it = stop
        self._chance = random.Random(agent.target)
        self.target = agent.target
        self.confirmed: set[int] = set()
        self.next = 1

    def run(self) -> None:
        while not self._stop_it.is_set():
            fresh = [self.next + number for number in range(self._chance.randint(1, 20))]
            old = self._chance.sample(sorted(self.confirmed), min(3, len(self.confirmed)))
            while not self._stop_it.is_set() and not self._send([*fresh, *old]):
                time.sleep(0.02)
            self.next = max(self.next, *(seq + 1 for seq in fresh))

    def _send(self, seqs: list[int]) -> bool:
        body = {"windows": [base64.b64encode(_window(seq)).decode() for seq in seqs]}
        headers = {"Authorization": f"Bearer {self._credential}"}
        try:
            answer = request("POST", self._url, body, headers=headers)
        except (OSError, http.client.HTTPException):
            return False
        if answer.status != 200:
            assert answer.status >= 500, answer.body
            return False
        assert not answer.json.get("refused"), answer.body
        for stored in answer.json["stored"]:
            self.confirmed.update(stored["seqs"])
        return True


def _window(seq: int) -> bytes:
    now = datetime.now(UTC)
    feature = NumericRecord(name="x", n=1, min=1, max=1, mean=1, fine=Sparse(gap=(1,), count=(1,)))
    return telemetry.pack(
        telemetry.TelemetryWindow(
            boot="b",
            seq=seq,
            start=now,
            end=now,
            seconds=60,
            requests=telemetry.Requests(ok=seq),
            features=(feature,),
        )
    )


def _credential(agent: Agent) -> str:
    import json

    return str(json.loads((agent.state / "identity.json").read_text())["credential"])


@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(5400)])])
def test_kills_of_the_server(kills: int, tmp_path: Path) -> None:
    server = Server(tmp_path / "server").start()
    chance = random.Random(kills)
    stop = threading.Event()
    token = server.client.create_token(records.TokenCreate(uses=DEVICES)).token
    agents = [Agent(server, f"robot-{number}", tmp_path).enrol(token) for number in range(DEVICES)]
    senders = [Sender(server, agent, stop) for agent in agents]
    try:
        for sender in senders:
            sender.start()
        for _ in range(kills):
            before = sum(len(sender.confirmed) for sender in senders)
            _wait(lambda before=before: sum(len(item.confirmed) for item in senders) > before)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.5))
            server.process.kill()
            server.start(hub=False)
        stop.set()
        for sender in senders:
            sender.join(60)
    finally:
        stop.set()
        server.stop()
    rows = _rows(tmp_path / "server")
    for sender in senders:
        counted = collections.Counter(seq for target, seq in rows if target == sender.target)
        assert max(counted.values()) == 1
        assert sender.confirmed <= set(counted), "a confirmed window is gone"
        assert len(sender.confirmed) > kills


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing is confirmed"
        time.sleep(0.01)


def _rows(folder: Path) -> list[tuple[str, int]]:
    (path,) = folder.rglob("edgeflow.db")
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT target_id, seq FROM edgeflow_windows").fetchall()
