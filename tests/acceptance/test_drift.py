"""From a device's requests to a notification: what a model sees shifts, and comes back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import edgeflow_mlflow
from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import ApiError
from tests.harness import Agent, Server, deployed, tracking, until
from tests.server.receiving import http_receiver

OFTEN = {
    "EDGEFLOW_DRIFT_EVERY_S": "0.3",
    "EDGEFLOW_ALERTS_EVERY_S": "0.3",
    "EDGEFLOW_NOTIFICATIONS_ALLOW_PRIVATE": "true",
}
NAMES = ["speed", "load", "heat"]


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("watching"), environment=OFTEN).start()
    yield server
    server.stop()


class Traffic:
    """Asks a device again and again; `shift` is added to what it sees as `heat`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._rng = np.random.default_rng(3)
        self._over = threading.Event()
        self.shift = 0.0

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._go_on, daemon=True)
        thread.start()
        yield
        self._over.set()
        thread.join(20)

    def _go_on(self) -> None:
        while not self._over.wait(0.02):
            rows = self._rng.normal(size=(200, 3))
            rows[:, 2] += self.shift
            assert self._agent.infer(rows.tolist()).status == 200


def test_a_shift_is_told_once_and_so_is_its_end(watching: Server, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(4000, 3))
    with tracking(watching.address):
        edgeflow_mlflow.log_model(
            LogisticRegression().fit(samples, samples.sum(axis=1) > 0),
            samples=samples,
            columns=NAMES,
            registered_model_name="arm",
        )
    client = watching.client
    agent = Agent(
        watching,
        "robot-07",
        tmp_path,
        # One window holds more than the 500 rows that a verdict needs.
        {"EDGEFLOW_AGENT_TELEMETRY_WINDOW_S": "1.5", "EDGEFLOW_AGENT_TELEMETRY_CPU_SHARE": "1"},
    ).enrol()
    agent.start()
    with contextlib.ExitStack() as stack:
        stack.callback(agent.stop)
        client.create_deployment(
            records.DeploymentCreate(
                name="arm",
                model_uri="models:/arm/1",
                where=records.Place(targets=["robot-07"]),
                monitor=records.MonitorSettings(capture_rate=0.2),
            )
        )
        deployed(watching, "arm")
        receiver = stack.enter_context(http_receiver())
        client.put_receiver(
            "ops",
            records.ReceiverPut(
                kind="webhook", url=receiver.url, matchers=["alertname=TargetDrift"], group_wait_s=0,
                group_interval_s=1,
            ),
        )  # fmt: skip
        usual = client.alert_rule("TargetDrift")
        client.put_alert_rule(  # as it comes, but that it ends at once
            "TargetDrift",
            records.RulePut(
                kind="drift", parameters=usual.parameters, severity="critical", annotations=usual.annotations
            ),
        )
        traffic = Traffic(agent)
        stack.enter_context(traffic.going_on())

        def heat() -> records.DriftView | None:
            found = {item.feature: item for item in client.drift(target="robot-07", scope="target")}
            return found.get("heat")

        until(lambda: (now := heat()) and now.status == "ok", "a first verdict", 60)
        traffic.shift = 1.0
        until(lambda: receiver.received, "the alert", 60)
        drifted = [item.status for item in heat().history].count("drift")  # type: ignore[union-attr]
        assert drifted <= 3, "two windows that agree are enough; a third may have come since"
        first = receiver.received[0].json
        assert first["status"] == "firing"
        (alert,) = first["alerts"]
        assert (alert["labels"]["target"], alert["labels"]["model"]) == ("robot-07", "arm")
        assert "heat" in alert["annotations"]["summary"]
        report = client.drift_report(target="robot-07")
        (shifted,) = (item for item in report.features if item.feature == "heat")
        assert shifted.histogram.baseline
        assert len(shifted.histogram.edges) == len(shifted.histogram.live) + 1
        assert agent.process.running
        traffic.shift = 0.0
        until(lambda: "resolved" in receiver.statuses(), "the end", 90)
        assert receiver.statuses() == ["firing", "resolved"]
        assert client.telemetry(target="robot-07").points[-1].requests > 0
        assert client.refused_telemetry("robot-07") == []
        # A request that the device has kept can be fetched, in many messages, and asked again.
        kept = until(lambda: client.captures("robot-07"), "a capture")
        found = client.capture("robot-07", kept[0].id)
        assert len(next(iter(found.inputs.values()))) == 200
        again = agent.infer({"inputs": found.inputs})
        assert again.json["outputs"] == found.outputs
        with pytest.raises(ApiError, match="no capture") as caught:
            client.capture("robot-07", "0" * 16 + "-" + "0" * 8)
        assert caught.value.status == 404
