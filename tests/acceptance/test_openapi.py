"""The OpenAPI document is true: schemathesis asks everything that it says, and much that it does not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeflow_mlflow.api import records
from tests.harness import BIN, Server, request


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose content may be destroyed."""
    server = Server(tmp_path_factory.mktemp("bare"), environment={"EDGEFLOW_MQTT_BROKER": "off"}).start()
    yield server
    server.stop()


def credential(server: Server) -> str:
    token = server.client.create_token(records.TokenCreate()).token
    body = {"token": token, "target": "robot-07", "idempotency_key": "schemathesis"}
    return str(request("POST", f"{server.api}/enroll", body).json["credential"])


@pytest.mark.timeout(400)
@pytest.mark.parametrize("who", ["operator", "device"])
def test_schemathesis(bare: Server, who: str, tmp_path: Path) -> None:
    words = [
        str(BIN / "schemathesis"), "run", f"{bare.api}/openapi.json", "--url", bare.api,
        "--phases", "examples,coverage,fuzzing",
        "--checks", ("not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance,unsupported_method,negative_data_rejection"),
        "--max-examples", "3", "--seed", "7", "--request-timeout", "20", "--no-color",
        "--suppress-health-check", "all",
    ]  # fmt: skip
    if who == "device":
        words += [
            "--include-path-regex",
            "^/device/",
            "--header",
            f"Authorization: Bearer {credential(bare)}",
        ]
    else:
        words += ["--exclude-path-regex", "^/device/"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in bare.process.text(), bare.process.text()[-4000:]
