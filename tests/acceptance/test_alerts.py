"""Alerts with a real server: a device goes, a real receiver is told once; it comes back, once. The hub is
killed in between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli.main import main
from edgeflow_mlflow.client import ApiError
from tests.harness import Server, request, until
from tests.server.receiving import Receiver, http_receiver


@pytest.fixture(scope="module")
def alarmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that looks often, and may tell this machine."""
    environment = {
        "EDGEFLOW_MQTT_BROKER": "off",
        "EDGEFLOW_ALERTS_EVERY_S": "0.3",
        "EDGEFLOW_NOTIFICATIONS_ALLOW_PRIVATE": "true",
    }
    server = Server(tmp_path_factory.mktemp("alarmed"), environment=environment).start()
    yield server
    server.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with http_receiver() as found:
        yield found


class Beating:
    """A device that says that it is there, again and again."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        token = server.client.create_token(records.TokenCreate()).token
        body = {"token": token, "target": name, "idempotency_key": f"key-of-{name}"}
        credential = request("POST", f"{server.api}/enroll", body).json["credential"]
        self._headers = {"Authorization": f"Bearer {credential}"}
        self._over = threading.Event()

    def beat(self) -> None:
        body = {"presence": {"kind": "heartbeat", "boot": "b"}, "reports": []}
        answer = request("POST", f"{self._server.api}/device/reports", body, headers=self._headers)
        assert answer.status == 200, answer.body

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        def go_on() -> None:
            while not self._over.wait(0.5):
                with contextlib.suppress(OSError):
                    self.beat()

        self._over.clear()
        self.beat()
        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        yield
        self._over.set()
        thread.join()


def command(server: Server, *words: str) -> Any:
    done = CliRunner().invoke(main, [*words, "--server", server.address])
    assert done.exit_code == 0, done.output
    return json.loads(done.output) if "--json" in words else done.output


def test_told_once_and_once_though_the_hub_is_killed(alarmed: Server, receiver: Receiver) -> None:
    client = alarmed.client
    rule = client.alert_rule("TargetOffline")
    assert (rule.origin, rule.for_s) == ("starter", 300)
    body = records.RulePut(
        kind="target_offline", severity="critical", annotations={"summary": "{target} is away"}
    )
    assert client.put_alert_rule("TargetOffline", body).origin == "changed"
    told = client.put_receiver(
        "ops",
        records.ReceiverPut(
            kind="webhook", url=f"{receiver.url}/hook", secret="s3cret", matchers=["target=robot-07"],
            group_wait_s=0, group_interval_s=1,
        ),
    )  # fmt: skip
    assert (told.address, told.has_secret) == (receiver.url, True)
    assert client.test_receiver("ops") == records.TrialResult(delivered=True, status=200, text="ok")
    assert receiver.received.pop().json["alerts"][0]["labels"]["alertname"] == "Test"

    device = Beating(alarmed, "robot-07")
    receiver.answers = [(503, {})]  # so that it is killed between firing and having told
    device.beat()
    until(lambda: receiver.received, "the first try")
    os.kill(request("GET", f"{alarmed.api}/ready").json["hub_pid"], signal.SIGKILL)
    until(lambda: len(receiver.received) == 2, "the next hub's try")
    (found,) = command(alarmed, "alerts", "list", "--json", "--phase", "firing", "--target", "robot-07")
    assert (found["rule"], found["receivers"]) == ("TargetOffline", ["ops"])
    assert "robot-07 is away" in command(alarmed, "alerts", "list")
    command(alarmed, "alerts", "ack", str(found["id"]), "--why", "on my way")
    with device.beating():
        until(lambda: "resolved" in receiver.statuses(), "the end")
        assert receiver.statuses() == ["firing", "firing", "resolved"]
        first, second, _ = receiver.received
        assert (first.delivery_id, first.body) == (second.delivery_id, second.body)
        until(lambda: client.deliveries("ops")[0].state == "sent", "the mark")
        assert [item.state for item in client.deliveries("ops")] == ["sent", "sent"]
        assert client.alerts(target="robot-07") == []
        (ended,) = client.alerts(target="robot-07", phase="resolved")
        assert ended.acknowledged_why == "on my way"
        page = request("GET", f"{alarmed.api}/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        series = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(page.body.decode())
            for sample in family.samples
        }
        assert series["edgeflow_webhook_deliveries_total", "sent"] == 2
        assert series["edgeflow_hub_up",] == 1
        assert request("GET", f"{alarmed.api}/metrics/devices").status == 404


def test_silences_and_refusals_over_the_api(alarmed: Server) -> None:
    client = alarmed.client
    silenced = command(alarmed, "alerts", "silence", "target=x", "--for", "2h", "--comment", "c", "--json")
    assert [item["id"] for item in command(alarmed, "alerts", "silences", "--json")] == [silenced["id"]]
    command(alarmed, "alerts", "expire", silenced["id"])
    assert client.silences() == []
    assert [item.state for item in client.silences(expired=True)] == ["expired"]
    assert "FleetOffline" in command(alarmed, "alerts", "rules")
    assert len(command(alarmed, "alerts", "rules", "--json")) == len(client.alert_rules())
    refused = [
        lambda: client.put_alert_rule("Mine", records.RulePut(kind="latenzy")),
        lambda: client.put_alert_rule("Mine", records.RulePut(kind="latency", parameters={"above": 1})),
        lambda: client.put_receiver(
            "bad", records.ReceiverPut(kind="webhook", url="http://169.254.169.254/")
        ),
        lambda: client.silence(records.SilenceCreate(matchers=["a=~.*"], duration_s=60)),
        lambda: client.silence(records.SilenceCreate(matchers=["a=b"])),
        lambda: client.acknowledge(10**6),
        lambda: client.delete_alert_rule("DiskLow"),
        lambda: client.test_receiver("nobody"),
    ]
    statuses = []
    for call in refused:
        with pytest.raises(ApiError) as error:
            call()
        statuses.append(error.value.status)
    assert statuses == [400, 400, 400, 400, 400, 404, 409, 404]
    mail = records.MailSettings(
        host="mail.example", sender="a@example.org", to=["b@example.org"], username="u"
    )
    made = client.put_receiver("mail", records.ReceiverPut(kind="email", mail=mail, password="p4ssw0rd-x"))
    assert made.address == "smtp://mail.example:587"
    assert b"p4ssw0rd-x" not in request("GET", f"{alarmed.api}/receivers").body
    folder: Path = alarmed.folder
    assert all(b"p4ssw0rd-x" not in path.read_bytes() for path in folder.rglob("*.db*"))
    client.delete_receiver("mail")
