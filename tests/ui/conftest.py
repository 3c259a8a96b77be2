"""A real MLflow server with the tab, real agents that are asked all the time, and a browser."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from onnx import ModelProto, TensorProto, helper
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sklearn.linear_model import LogisticRegression

import edgeflow_mlflow
from edgeflow_mlflow.api import records
from tests import harness
from tests.harness import Agent, Server, deployed, tracking

expect.set_options(timeout=20_000)
COLUMNS = ["speed", "load", "heat"]
OFTEN = {
    "EDGEFLOW_DRIFT_EVERY_S": "0.5",
    "EDGEFLOW_ALERTS_EVERY_S": "0.5",
    "EDGEFLOW_NOTIFICATIONS_ALLOW_PRIVATE": "true",
}
# The side panel that MLflow opens at the first visit is not what is looked at.
_CALM = "localStorage.setItem('mlflow.assistant.panel.open', 'false');"


@dataclass
class World:
    """The server, its agents by name, and what is sent to them."""

    server: Server
    folder: Path
    agents: dict[str, Agent] = field(default_factory=dict)
    shift: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def agent(self, name: str, labels: dict[str, str]) -> Agent:
        """A new one that runs."""
        token = self.server.client.create_token(records.TokenCreate(labels=labels)).token
        quick = {"EDGEFLOW_AGENT_TELEMETRY_WINDOW_S": "1.5", "EDGEFLOW_AGENT_TELEMETRY_CPU_SHARE": "1"}
        self.agents[name] = Agent(self.server, name, self.folder, quick).enrol(token).start()
        return self.agents[name]

    def ask(self, name: str, width: int, rows: int) -> None:
        """Ask it from now on, again and again."""
        thread = threading.Thread(target=self._ask, args=(self.agents[name], width, rows), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _ask(self, agent: Agent, width: int, rows: int) -> None:
        rng = np.random.default_rng(3)
        while not self.over.wait(0.05):
            table = rng.normal(size=(rows, width))
            table[:, -1] += self.shift
            with contextlib.suppress(OSError):
                agent.infer(table.tolist())

    def stop(self) -> None:
        """End everything."""
        self.over.set()
        for thread in self.threads:
            thread.join(20)
        for agent in self.agents.values():
            agent.stop()
        self.server.stop()


def turned(page: Page) -> None:
    """Wait until the page before is gone: where only the fragment changes it is there for a moment yet."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def loaded(page: Page) -> None:
    """Wait until one of our pages shows what it asked for."""
    turned(page)
    expect(page.locator("edgeflow-app h1").first).to_be_visible()
    expect(page.locator("edgeflow-app [aria-busy=true]")).to_have_count(0)


def _double(*, fails: bool) -> ModelProto:
    """Twice the input; the bad one asks for a row that is mostly not there."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    if fails:
        nodes = [
            helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
            helper.make_node("Cast", ["m"], ["i"], to=TensorProto.INT64),
            helper.make_node("Gather", ["x", "i"], ["y"]),
        ]
    shape: list[Any] = [None, 2]
    graph = helper.make_graph(
        nodes,
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] if fails else shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _colour() -> ModelProto:
    """Which of red, green and blue an image has most of."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Softmax", ["mean"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _log_models(server: Server) -> None:
    import mlflow
    import mlflow.data

    samples = np.random.default_rng(1).normal(size=(3000, 3))
    with tracking(server.address):
        with mlflow.start_run():
            frame = pd.DataFrame(samples, columns=COLUMNS)
            mlflow.log_input(
                mlflow.data.from_pandas(frame, name="arm-data", source="arm.csv"), context="training"
            )
            edgeflow_mlflow.log_model(
                LogisticRegression().fit(samples, samples.sum(axis=1) > 0),
                samples=samples,
                columns=COLUMNS,
                registered_model_name="arm",
            )
        for fails in (False, True):
            edgeflow_mlflow.log_model(_double(fails=fails), registered_model_name="double")
        edgeflow_mlflow.log_model(
            _colour(),
            steps=[
                {"step": "decode_image"},
                {"step": "resize", "width": 16, "height": 16},
                {"step": "normalise"},
                {"step": "layout"},
                {"step": "feed", "input": "images"},
                {"step": "labels", "output": "scores", "labels": ["red", "green", "blue"]},
            ],
            registered_model_name="colour",
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Four devices with three models, and requests to each."""
    folder = tmp_path_factory.mktemp("ui")
    server = Server(folder / "server", kind="mlflow", words=("--workers", "1"), environment=OFTEN)
    made = World(server, folder)
    try:
        server.start(timeout_s=90)
        _log_models(server)
        for name, labels in (
            ("robot-01", {"site": "lyon", "arm": "left"}),
            ("robot-02", {"site": "lyon", "arm": "right"}),
            ("robot-03", {"site": "turin"}),
            ("camera-01", {"kind": "camera"}),
        ):
            made.agent(name, labels)
        client = server.client
        for name, places in (
            ("arm", ["robot-01"]),
            ("double", ["robot-02", "robot-03"]),
            ("colour", ["camera-01"]),
        ):
            where = records.Place(targets=places)
            client.create_deployment(
                records.DeploymentCreate(name=name, model_uri=f"models:/{name}/1", where=where)
            )
        for name in ("arm", "double", "colour"):
            deployed(server, name)
        made.ask("robot-01", 3, 150)
        made.ask("robot-02", 2, 1)
        made.ask("robot-03", 2, 1)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; skipped with a word where it is not installed, never in CI."""
    program = shutil.which("chromium")
    if program is None:
        assert not harness.IN_CI, "Chromium must be installed in CI"
        pytest.skip("Chromium is not installed (make test installs it where it can)")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh window; a test fails when a script in it does."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.add_init_script(_CALM)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert not errors, errors
