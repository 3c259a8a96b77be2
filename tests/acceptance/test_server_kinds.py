"""Every way to start the server that we promise, and a clear refusal of those that we do not."""

from __future__ import annotations

import json
import socket
import sqlite3
from pathlib import Path

import pytest

from edgeflow_agent.wire import documents
from edgeflow_mlflow.api import records
from tests.harness import BIN, ROOT, Agent, Process, Server, command, deployed, free_port, request, until


def main_job(server: Server, folder: Path) -> None:
    """Enrol, train, deploy, answer."""
    agent = Agent(server, "robot-07", folder).enrol().start()
    try:
        command(
            "python", str(ROOT / "examples" / "train_iris.py"), environment=server.environment_of_clients()
        )
        server.client.create_deployment(
            records.DeploymentCreate(
                name="iris", model_uri="models:/iris/1", where=records.Place(targets=["robot-07"])
            )
        )
        deployed(server, "iris")
        assert agent.infer([5.1, 3.5, 1.4, 0.2]).json["labels"] == ["setosa"]
    finally:
        agent.stop()


@pytest.mark.parametrize(
    ("kind", "words", "prefix"),
    [
        ("mlflow", ("--gunicorn-opts", "--log-level warning", "--workers", "2"), ""),
        ("mlflow", ("--workers", "1"), "/fleet"),
        pytest.param("edgeflow", (), "/fleet", marks=pytest.mark.slow),
        pytest.param(
            "mlflow",
            ("--workers", "1", "--backend-store-uri", "edgeflow+sqlite:///mlflow.db"),
            "",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["gunicorn", "static-prefix", "edgeflow-server-prefix", "own-scheme"],
)
def test_the_main_job(tmp_path: Path, kind: str, words: tuple[str, ...], prefix: str) -> None:
    server = Server(tmp_path, kind=kind, words=words, prefix=prefix).start()
    try:
        main_job(server, tmp_path)
        if "--gunicorn-opts" in words:
            gunicorn_bounds_bodies_and_sends_ranges(server, tmp_path)
    finally:
        server.stop()


def gunicorn_bounds_bodies_and_sends_ranges(server: Server, folder: Path) -> None:
    """There Flask itself does what the ASGI layer does under uvicorn."""
    large = request(
        "POST", f"{server.api}/tokens", data=b"x" * 2_000_000, headers={"Content-Type": "application/json"}
    )
    assert large.status == 413
    credential = json.loads((folder / "robot-07-state" / "identity.json").read_text())["credential"]
    bearer = {"Authorization": f"Bearer {credential}"}
    sha256 = server.client.deployment("iris").deployment.rollout.model.files[0].sha256
    url = f"{server.api}/device/blobs/{sha256}"
    whole = request("GET", url, headers=bearer)
    part = request("GET", url, headers={**bearer, "Range": "bytes=10-19", "If-Range": f'"{sha256}"'})
    assert (whole.status, part.status, part.body) == (200, 206, whole.body[10:20])
    assert whole.headers["etag"] == f'"{sha256}"'
    assert documents.SHA256.fullmatch(sha256)


def refused(tmp_path: Path, *words: str, **environment: str) -> str:
    """What a server says that does not start."""
    process = Process([str(BIN / words[0]), *words[1:]], tmp_path, "refused", environment)
    process.start()
    until(lambda: not process.running, f"{words} to give up", 60)
    assert process.stop() != 0
    return process.text()


def test_waitress_is_refused_with_a_word(tmp_path: Path) -> None:
    said = refused(
        tmp_path, "mlflow", "server", "--app-name", "edgeflow", "--waitress-opts", "--threads=1",
        "--port", str(free_port()), MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    )  # fmt: skip
    assert "does not run under waitress" in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_listening_to_the_network_is_refused_with_a_word(tmp_path: Path, workers: str) -> None:
    said = refused(
        tmp_path, "mlflow", "server", "--app-name", "edgeflow", "--host", "0.0.0.0", "--workers", workers,
        "--port", str(free_port()), MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    )  # fmt: skip
    assert "refusing to listen on 0.0.0.0" in said
    assert "i-know" in said


def test_a_taken_port_names_the_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        free = str(free_port())
        said = refused(tmp_path, "edgeflow", "server", "--port", free, "--mqtt-port", port)
        assert "--mqtt-port" in said
        assert "EDGEFLOW_MQTT_PORT" in said
        said = refused(tmp_path, "edgeflow", "server", "--port", port, "--mqtt-port", "0")
        assert "--port" in said
        assert "Traceback" not in said


def test_a_broker_that_cannot_start_leaves_devices_to_poll(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Server(
            tmp_path, kind="mlflow", words=("--workers", "1"), mqtt_port=taken.getsockname()[1]
        ).start()
        try:
            until(lambda: "EDGEFLOW_MQTT_PORT" in server.client.ready().mqtt_error, "the reason")
            assert not server.client.ready().mqtt_healthy
            main_job(server, tmp_path)
        finally:
            server.stop()


def test_edgeflows_rows_are_in_a_file_of_their_own(server: Server) -> None:
    """A plain MLflow can use mlflow.db any time; ours is in WAL mode."""
    with sqlite3.connect(server.folder / "mlflow.db") as link:
        names = {row[0] for row in link.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    assert not [name for name in names if name.startswith("edgeflow_")]
    with sqlite3.connect(server.folder / "edgeflow.db") as link:
        assert link.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_typing_error_in_the_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "edgeflow.toml").write_text("[mqtt]\nprot = 1884\n")
    said = refused(tmp_path, "edgeflow", "server", "--port", str(free_port()))
    assert "did you mean mqtt.port" in said
    assert "Traceback" not in said
