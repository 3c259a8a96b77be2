"""The commands of a device, as real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeflow_agent import version
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire import signing, tokens
from tests.agent.conftest import AgentProcess, enrol, linear, request, wait_for

Start = Callable[..., AgentProcess]


def agent(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeflow_agent.cli", *args],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_version() -> None:
    assert version.VERSION in agent("--version").stdout
    assert agent("nonsense").returncode == 2


def test_serve_needs_nothing_and_prints_a_curl_that_works(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(linear(2))
    home = tmp_path / "home"
    home.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeflow_agent.cli", "serve", "m.onnx", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
        | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
    )
    try:
        assert process.stdout is not None
        said, curl = process.stdout.readline(), process.stdout.readline()
        url = re.search(r"http://\S+", said)
        body = re.search(r"-d '(.*)'", curl)
        assert url
        assert body
        assert request(f"{url[0]}/infer", json.loads(body[1])) == (
            200,
            {"outputs": {"y": [[0.0]]}, "model": {"name": "m", "version": "file"}},
        )
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()
    # ONNX Runtime's telemetry is off: nothing was left in the home folder.
    assert list(home.rglob("*")) == []


def test_linear_algebra_is_told_to_take_one_thread_before_it_is_loaded() -> None:
    """Its threads are made, and spin, while NumPy is loaded: saying so later is too late."""
    code = (
        "import os, sys\n"
        "from click.testing import CliRunner\n"
        "from edgeflow_agent import cli\n"
        "assert 'numpy' not in sys.modules\n"
        "CliRunner().invoke(cli.main, ['status', '--state-dir', 'nowhere'])\n"
        "print(os.environ['OPENBLAS_NUM_THREADS'])\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    for given, expected in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2")):
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, env=clean | given, capture_output=True, text=True
        )
        assert done.stdout.strip() == expected


def test_telemetry_is_off_before_the_import_whatever_the_environment_says() -> None:
    code = (
        "import os\n"
        "from edgeflow_agent.inference import engine\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    for value in ("0", "1"):
        subprocess.run(
            [sys.executable, "-c", code], check=True, env=os.environ | {"ORT_DISABLE_TELEMETRY": value}
        )


def test_importing_starts_nothing() -> None:
    code = (
        "import threading, importlib, pkgutil, edgeflow_agent\n"
        "for item in pkgutil.walk_packages(edgeflow_agent.__path__, 'edgeflow_agent.'):\n"
        "    importlib.import_module(item.name)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("serve", "none.onnx"), "there is no file"),
        (("serve", "bad.onnx"), "cannot be loaded"),
        (("run",), "not enrolled"),
        (("status", "--state-dir", "none"), "enroll"),
        (("enroll", "--server", "http://x", "--token", "abc", "--target", "r"), "enrolment token"),
        (("enroll", "--server", "http://x", "--token", "abc", "--target", "R 7"), "robot-07"),
        (("enroll", "--token", "abc"), "--target"),
        (("run", "--config", "none.toml"), "none.toml"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(tmp_path: Path, args: tuple[str, ...], told: str) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    assert told in refused(agent(*args, cwd=tmp_path))


def test_enrol_run_status(server: FakeServer, tmp_path: Path, agents: Start) -> None:
    state_dir = tmp_path / "s"
    args = ("enroll", "--server", server.url, "--target", "robot-07", "--state-dir", str(state_dir))
    foreign = tokens.format_token(tokens.Token("c" * 16, "d" * 48, "0" * 32))
    told = refused(agent(*args, "--token", foreign))
    assert "the server refuses the token" in told
    assert "edgeflow tokens create --target robot-07" in told
    result = agent(*args, "--token", "-", input=server.token() + "\n")
    assert result.returncode == 0, result.stderr
    assert "eft1_" not in result.stdout + result.stderr
    told = refused(agent(*args, "--token", server.token()))
    assert "already enrolled" in told
    assert "edgeflow tokens create --target robot-07" in told
    assert agent(*args, "--token", server.token(), "--force").returncode == 0

    running = agents(state_dir)
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    facts = json.loads(agent("status", "--json", "--state-dir", str(state_dir)).stdout)
    assert (facts["running"], facts["model"], facts["version"]) == (True, "iris", "1")
    assert facts["url"] == running.url
    assert "another agent" in refused(agent("run", "--state-dir", str(state_dir), "--port", "0"))
    assert running.predicts() == 4.0
    assert running.stop() == 0
    facts = json.loads(agent("status", "--json", "--state-dir", str(state_dir)).stdout)
    assert (facts["running"], facts["version"], facts["generation"]) == (False, "1", 1)
    assert server.presence[-1].kind == "goodbye"
    log = running.log.read_text()
    assert tokens.SECRET.search(log) is None


def test_another_server_than_the_tokens_is_refused(server: FakeServer, tmp_path: Path) -> None:
    impostor = FakeServer()
    try:
        token = server.token()
        impostor.token = lambda: token  # type: ignore[method-assign]
        args = ("--server", impostor.url, "--target", "robot-07", "--state-dir", str(tmp_path / "s"))
        assert "root key" in refused(agent("enroll", "--token", token, *args))
        assert not (tmp_path / "s" / "identity.json").exists()
    finally:
        impostor.stop()


def test_a_lost_answer_does_not_burn_the_token(server: FakeServer, tmp_path: Path) -> None:
    args = ("--target", "robot-07", "--token", server.token(), "--state-dir", str(tmp_path / "s"))
    server.fail = 500
    refused(agent("enroll", "--server", server.url, *args))
    server.fail = 0
    keys = [
        json.loads((tmp_path / "s" / "enrolment.json").read_text())["idempotency_key"],
    ]
    assert agent("enroll", "--server", server.url, *args).returncode == 0
    assert list(server.enrolments) == keys
    assert not (tmp_path / "s" / "enrolment.json").exists()


def test_a_crash_of_a_model_on_trial_is_its_verdict(
    server: FakeServer, tmp_path: Path, agents: Start
) -> None:
    """Killed three times while version 2 is on trial: version 1 comes back."""
    from edgeflow_agent.wire.documents import Trial

    state_dir = tmp_path / "s"
    enrol(server, state_dir)
    running = agents(state_dir)
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    server.deploy(2, {"model.onnx": linear(2)}, trial=Trial(duration_s=3600))
    server.wait_report("trial", execution="e2")
    for expected in (8.0, 8.0, 4.0):
        running.kill()
        running = agents(state_dir)
        wait_for(lambda: running.predicts() == expected, what=f"{expected} to be served")  # noqa: B023
    assert server.wait_report("rolled_back", execution="e2").reason == "trial_crash"
    assert running.stop() == 0


def test_the_fingerprint_is_that_of_the_root_key(server: FakeServer) -> None:
    raw = signing.raw_public_key(server.root.public_key())
    assert tokens.parse_token(server.token()).fingerprint == signing.fingerprint(raw)
