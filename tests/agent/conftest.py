"""Models, a server of the device API, and agents as real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeflow_agent import config
from edgeflow_agent.runtime import enrolment
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.testing import FakeServer

OPSET = [helper.make_opsetid("", 17)]


def wait_for(condition: Callable[[], Any], timeout_s: float = 60.0, what: str = "") -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout_s} s in vain for {what or condition}")


def model_bytes(graph: onnx.GraphProto) -> bytes:
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8).SerializeToString()


def linear(factor: float = 1.0, *, columns: int = 4, input_name: str = "x", padding: int = 0) -> bytes:
    """y = factor * sum(x), so that an answer tells which version gave it."""
    weights = np.full((columns, 1), factor, dtype=np.float32)
    initializers = [numpy_helper.from_array(weights, "w")]
    if padding:
        noise = np.random.default_rng(int(factor)).integers(0, 255, padding, dtype=np.uint8)
        initializers.append(numpy_helper.from_array(noise, "padding"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", [input_name, "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        initializers,
    )
    return model_bytes(graph)


def endless() -> bytes:
    """A graph of a few hundred bytes that never ends: a loop of 2**62 turns."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            helper.make_node("Add", ["v_in", "v_in"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, [None, 4]),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [None, 4]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "yes", "x"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [
            numpy_helper.from_array(np.array(2**62, dtype=np.int64), "n"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    return model_bytes(graph)


def hungry(elements: int = 2**31) -> bytes:
    """A graph of a few bytes that wants `4 * elements` bytes of memory."""
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["total"], keepdims=0),
            helper.make_node("Add", ["x", "total"], ["y"]),
        ],
        "hungry",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [numpy_helper.from_array(np.array([elements], dtype=np.int64), "shape")],
    )
    return model_bytes(graph)


def failing() -> bytes:
    """Fails at run time for inputs whose first value is not 0 (an index out of bounds); zeros are fine."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
            helper.make_node("Cast", ["m"], ["i"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "i"], ["y"]),
        ],
        "failing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.zeros(1, dtype=np.float32), "table")],
    )
    return model_bytes(graph)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("EDGEFLOW_AGENT_", "EDGEFLOW_CRASH")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.stop()


def settings(state_dir: Path, server: FakeServer | None = None, **changes: Any) -> config.AgentConfig:
    values: dict[str, Any] = {
        "state_dir": state_dir,
        "port": 0,
        "resend_s": 0.5,
        "link_timeout_s": 5.0,
        "keep_free_mb": 0,
    }
    if server is not None:
        values["server_url"] = server.url
    return config.AgentConfig(**(values | changes))


def enrol(server: FakeServer, state_dir: Path) -> None:
    enrolment.enrol(settings(state_dir, server), token=server.token(), target=server.target)


def request(url: str, body: Any = None, *, raw: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON body."""
    data = raw if raw is not None else (None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


Run = Callable[..., Agent]


@pytest.fixture
def run(server: FakeServer, tmp_path: Path) -> Iterator[Run]:
    started: list[Agent] = []

    def start(**changes: Any) -> Agent:
        state_dir = tmp_path / "state"
        if not state_dir.exists():
            enrol(server, state_dir)
        agent = Agent(settings(state_dir, server, **changes))
        started.append(agent)
        agent.start()
        return agent

    yield start
    for agent in started:
        agent.stop()


def served(agent: Agent) -> float | None:
    status, answer = request(f"{agent.url}/infer", [1, 1, 1, 1])
    return answer["outputs"]["y"][0][0] if status == 200 else None


@pytest.fixture
def serving(server: FakeServer, run: Run) -> Agent:
    """An agent that serves version 1."""
    agent = run()
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    assert served(agent) == 4.0
    return agent


class AgentProcess:
    """`edgeflow-agent run` as a real process."""

    def __init__(self, state_dir: Path, *args: str, env: dict[str, str] | None = None) -> None:
        self.state_dir = state_dir
        self.log = state_dir.parent / f"{state_dir.name}.log"
        environment = os.environ | {
            "EDGEFLOW_AGENT_SERVE_PORT": "0",
            "EDGEFLOW_AGENT_SERVER_RESEND_S": "0.5",
            "EDGEFLOW_AGENT_STORE_KEEP_FREE_MB": "0",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgeflow_agent.cli", "run", "--state-dir", str(state_dir), *args],
                stdout=log,
                stderr=log,
                env=environment | (env or {}),
            )

    @property
    def url(self) -> str:
        def announced() -> str:
            try:
                said = json.loads((self.state_dir / "agent.json").read_text())
            except (OSError, ValueError):
                return ""
            return said["url"] if said["pid"] == self.process.pid else ""

        def ready() -> str:
            assert self.process.poll() is None, self.log.read_text()
            return announced()

        return str(wait_for(ready, what="the agent to announce itself"))

    def predicts(self) -> float | None:
        """What the served model makes of ones; None when nothing answers."""
        try:
            status, answer = request(f"{self.url}/infer", [1, 1, 1, 1])
        except OSError:
            return None
        return answer["outputs"]["y"][0][0] if status == 200 else None

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


@pytest.fixture
def agents() -> Iterator[Callable[..., AgentProcess]]:
    started: list[AgentProcess] = []

    def start(state_dir: Path, *args: str, env: dict[str, str] | None = None) -> AgentProcess:
        agent = AgentProcess(state_dir, *args, env=env)
        started.append(agent)
        return agent

    yield start
    for agent in started:
        if agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait(20)
