"""The routes of telemetry and drift, on the application that serves them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from sqlalchemy import func, select

from edgeflow_agent.drift import baseline_file
from edgeflow_mlflow.api import blueprint
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import drift, enrol, telemetry
from edgeflow_mlflow.services import fleets as fleet_service
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock
from tests.server.watched_device import Watched, baseline_content, fleet, on_sqlite, values


class Registry:
    """Knows one version, as MLflow would."""

    def registry(self) -> Registry:
        return self

    def get_model_version(self, name: str, version: str) -> object:
        if (name, version) != ("iris", "1"):
            raise MlflowException("no such version", error_code=RESOURCE_DOES_NOT_EXIST)
        return object()


@pytest.fixture
def devices(state: State, tmp_path: Path) -> list[Watched]:
    return fleet(state, tmp_path, "robot-1", "robot-2")


@pytest.fixture
def http(state: State) -> Iterator[FlaskClient]:
    app = Flask("test")
    access = blueprint.Access(sees_model=lambda user, name: name != "secret")
    blueprint.install(app, prefix="", state=state, catalog=Registry(), access=access)  # type: ignore[arg-type]
    with app.test_client() as client:
        yield client


def get(http: FlaskClient, path: str, status: int = 200) -> Any:
    answer = http.get(f"/api/v1{path}")
    assert answer.status_code == status, answer.text
    return answer.json


def post(http: FlaskClient, path: str, body: Any, credential: str, status: int = 200) -> Any:
    headers = {"Authorization": f"Bearer {credential}"}
    answer = http.post(f"/api/v1{path}", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json


def credential(state: State, name: str) -> str:
    issued = enrol.create_token(
        state, uses=1, ttl=timedelta(hours=1), labels={}, target=name, note="", actor="me"
    )
    return enrol.enrol(state, issued.text, name, "made up once")


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_device_posts_windows_and_people_see_them(
    state: State, clock: Clock, devices: list[Watched], http: FlaskClient
) -> None:
    one, two = devices
    secret = credential(state, one.name)
    clock.pass_by(seconds=30)
    packed = [one.sent(values(100), swaps=1, resources={"temperature_c": 61.5}), one.sent(), b"?"]
    answer = post(http, "/device/telemetry", {"windows": [text(item) for item in packed]}, secret)
    assert answer["stored"] == [{"boot": "boot-1", "seqs": [1, 2]}]
    assert answer["refused"]["2"].startswith("unreadable")
    assert post(http, "/device/telemetry", {}, secret) == {}
    post(http, "/device/telemetry", {"windows": ["@"]}, secret, 400)
    assert http.post("/api/v1/device/telemetry", json={"windows": []}).status_code == 401

    clock.pass_by(minutes=5)
    telemetry.take(state, two.name, [two.sent(values(30), dropped=4)])
    clock.pass_by(seconds=1)
    found = get(http, "/telemetry?deployment=iris&step=60")
    first, last = found["points"]
    assert (first["requests"], first["windows"], first["targets"], first["swaps"]) == (110, 2, 1, 1)
    assert first["outcomes"]["ok"] == 110
    assert first["error_rate"] == 0
    assert first["throughput"] == pytest.approx(110 / 60)
    assert 0.001 < first["latency_p50_s"] < first["latency_p99_s"] <= 0.0025
    assert first["latency_mean_s"] == pytest.approx(0.002)
    assert first["resources"] == {"temperature_c": 61.5}
    assert (last["requests"], last["dropped"], last["observed"]) == (30, 4, 30)
    fleet_service.create(state, "all", selector="", targets=["robot-1", "robot-2"], actor="me")
    for whose in ("fleet=all", "model=iris&version=1", "model=iris"):
        assert get(http, f"/telemetry?{whose}&step=60")["points"] == found["points"]
    assert len(get(http, "/telemetry?target=robot-2")["points"]) == 1
    assert get(http, "/telemetry?target=robot-2&to=2026-01-01T00:00:00Z")["points"] == []

    refused = get(http, "/telemetry/refused?target=robot-1")["refusals"]
    assert [(item["reason"], item["count"]) for item in refused] == [("unreadable", 1)]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/telemetry", 400),
        ("/telemetry?version=1", 400),
        ("/telemetry?target=robot-1&from=2026-03-03T00:00:00", 400),
        ("/telemetry?target=robot-1&from=2027-03-03T00:00:00Z", 400),
        ("/telemetry?target=robot-1&step=1", 400),
        ("/telemetry?target=robot-1&start=2026-03-03T00:00:00Z", 400),
        ("/telemetry?target=robot-9", 404),
        ("/telemetry?fleet=none", 404),
        ("/telemetry?deployment=none", 404),
        ("/telemetry?model=secret", 403),
        ("/telemetry/refused?page_token=x", 400),
        ("/drift?status=bad", 400),
        ("/drift?model=secret", 403),
        ("/drift/report", 400),
        ("/drift/report?target=robot-1", 404),
        ("/drift/report?model=secret", 403),
        ("/models/iris/versions/2/thresholds", 404),
        ("/models/iris/versions/x/thresholds", 404),
        ("/models/secret/versions/1/thresholds", 403),
    ],
)
def test_questions_that_make_no_sense(path: str, status: int, quick: FlaskClient) -> None:
    assert get(quick, path, status)["message"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """An application on SQLite that changes nothing, for many small questions."""
    from edgeflow_mlflow import config
    from edgeflow_mlflow.services import opening

    folder = tmp_path_factory.mktemp("quick")
    flags = {
        "server.data_dir": str(folder / "data"),
        "server.database_url": f"sqlite:///{folder}/edgeflow.db",
    }
    state = opening.open_state(opening.resolve(config.load(environment={}, flags=flags), None))
    fleet(state, folder, "robot-1")
    app = Flask("quick")
    access = blueprint.Access(sees_model=lambda user, name: name != "secret")
    blueprint.install(app, prefix="", state=state, catalog=Registry(), access=access)  # type: ignore[arg-type]
    with app.test_client() as client:
        yield client
    state.database.dispose()


def test_verdicts_and_a_report(state: State, clock: Clock, devices: list[Watched], http: FlaskClient) -> None:
    one, two = devices
    for _ in range(2):
        clock.pass_by(minutes=1)
        telemetry.take(state, one.name, [one.sent(values(500, 1.0))])
        telemetry.take(state, two.name, [two.sent(values(500))])
        drift.evaluate(state)
    clock.pass_by(seconds=1)
    alarms = get(http, "/drift?alarms=true")["verdicts"]
    assert [(item["name"], item["feature"]) for item in alarms] == [
        ("robot-1", "length"),
        ("robot-1", "width"),
    ]
    assert alarms[0]["signals"] and len(alarms[0]["history"]) == 2
    assert len(get(http, "/drift?model=iris&version=1")["verdicts"]) == 6
    assert len(get(http, "/drift?target=robot-2&status=ok")["verdicts"]) == 3
    assert get(http, "/drift?fleet=none")["verdicts"] == []
    page = get(http, "/drift?limit=4")
    rest = get(http, f"/drift?limit=4&page_token={page['next_page_token']}")
    assert (len(page["verdicts"]), len(rest["verdicts"]), rest["next_page_token"]) == (4, 2, "")

    report = get(http, "/drift/report?target=robot-1")
    assert (report["windows"], report["used"], report["refused"], report["targets"]) == (2, 2, 0, 1)
    width = next(item for item in report["features"] if item["feature"] == "width")
    assert (width["n"], width["status"], width["kind"]) == (1000, "drift", "input")
    assert width["statistics"]["mean_shift"]["value"] == pytest.approx(1, abs=0.2)
    assert len(width["histogram"]["edges"]) == len(width["histogram"]["live"]) + 1
    colour = next(item for item in report["features"] if item["feature"] == "colour")
    assert colour["histogram"]["labels"][-1] == "others"
    pooled = get(http, "/drift/report?model=iris&version=1")
    assert (pooled["targets"], pooled["windows"]) == (2, 4)


@on_sqlite
def test_thresholds_are_shown_and_set(http: FlaskClient) -> None:
    path = "/models/iris/versions/1/thresholds"
    usual = get(http, path)
    assert usual["is_usual"] and usual["limits"]["psi_groups"] == 0.1
    changed = http.put(
        f"/api/v1{path}", json={"limits": {"psi_groups": 0.3, "missing_share": None}, "min_samples": 50}
    )
    assert changed.status_code == 200
    assert changed.json == get(http, path)
    assert changed.json["limits"]["psi_groups"] == 0.3
    assert "missing_share" not in changed.json["limits"]
    assert (changed.json["min_samples"], changed.json["is_usual"]) == (50, False)
    wrong = http.put(f"/api/v1{path}", json={"limits": {"psi_group": 0.3}})
    assert wrong.status_code == 400
    assert "did you mean psi_groups" in wrong.json["message"]
    assert http.put(f"/api/v1{path}", json={}).json == usual


def test_a_learned_baseline_is_kept_and_used(
    state: State, clock: Clock, devices: list[Watched], http: FlaskClient
) -> None:
    device = devices[0]
    secret = credential(state, device.name)
    digest = device.bundle.digest
    names = []
    for _ in range(7):
        clock.pass_by(minutes=1)
        body = {"digest": digest, "baseline": text(zlib.compress(baseline_content(n=200)))}
        names.append(post(http, "/device/baselines", body, secret)["sha256"])
        assert post(http, "/device/baselines", body, secret)["sha256"] == names[-1]
    with state.database.read() as session:
        assert set(session.scalars(select(models.LearnedBaseline.sha256))) == set(names[2:])
    device.baseline = baseline_file.parse(zlib.decompress(base64.b64decode(body["baseline"])))
    packed = device.sent(values(500), baseline=names[-1], is_learned=True)
    telemetry.take(state, device.name, [packed])
    drift.evaluate(state)
    with state.database.read() as session:
        assert session.scalar(select(func.count()).where(models.Drift.baseline_sha256 == names[-1])) == 3

    good = text(zlib.compress(baseline_content(n=200)))
    for body, status in (
        ({"digest": "0" * 64, "baseline": good}, 400),
        ({"digest": digest, "baseline": text(b"{}")}, 400),
        ({"digest": digest, "baseline": text(zlib.compress(b"{}"))}, 400),
        ({"digest": digest, "baseline": text(zlib.compress(b"x" * 17 * 2**20))}, 400),
        ({"digest": digest, "baseline": text(b"x" * 701 * 1024)}, 413),
    ):
        assert post(http, "/device/baselines", body, secret, status)["message"]
