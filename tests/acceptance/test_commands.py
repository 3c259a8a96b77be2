"""Commands of `edgeflow` as an operator types them, against a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import Agent, Server, command


@pytest.fixture(scope="module")
def robot(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return Agent(server, "typed-1", tmp_path_factory.mktemp("typed")).enrol()


def typed(server: Server, *words: str, code: int = 0, says: str = "") -> str:
    done = command("edgeflow", *words, environment=server.environment_of_clients(), fails=code != 0)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    return done.stdout


def test_a_fleet_is_made_looked_at_changed_and_forgotten(server: Server, robot: Agent) -> None:
    typed(server, "fleets", "create", "typed", "--target", robot.target, says="1 devices")
    typed(server, "fleets", "list", says="typed")
    typed(server, "fleets", "show", "typed", says=robot.target)
    typed(server, "fleets", "change", "typed", "--selector", "ring=typed", says="0 devices")
    typed(server, "fleets", "delete", "typed", says="deleted")
    typed(server, "fleets", "show", "typed", code=1, says="no fleet")


def test_a_model_goes_out_and_its_rollout_is_shown(server: Server, robot: Agent, iris: str) -> None:
    uri = f"models:/{iris}/1"
    typed(server, "deploy", "typed", uri, code=2, says="--selector")
    typed(server, "deploy", "typed", uri, "--target", robot.target, "-C", "wavez=1", code=1, says="waves")
    typed(server, "deploy", "typed", uri, "--target", robot.target, "--plan", says="1 targets")
    robot.start()
    try:
        typed(server, "deploy", "typed", uri, "--target", robot.target)
        assert robot.serves() == (iris, "1")
        typed(server, "targets", "executions", robot.target, says="deployed")
        execution = json.loads(typed(server, "targets", "executions", robot.target, "--json"))[0]["id"]
        typed(server, "targets", "executions", robot.target, execution, says="loading")
        typed(server, "deployments", "predict", "typed", "{", code=2, says="JSON")
        answer = json.loads(typed(server, "deployments", "predict", "typed", "[[5.1, 3.5, 1.4, 0.2]]"))
        assert answer["status"] == 200
        typed(server, "status", says="online")
        typed(server, "status", "--which", "online", says=robot.target)
        typed(server, "models", "list", says=robot.target)
        typed(server, "models", "show", iris, says="deployable")
        typed(server, "models", "show", iris, "1", says="deployable")
        typed(server, "models", "thresholds", iris, "1", says="min samples")
        typed(server, "models", "thresholds", iris, "1", "--limit", "psi=much", code=2, says="a number")
        typed(server, "doctor", says="hub")
        typed(server, "deployments", "delete", "typed", "--yes", says="deleted")
    finally:
        robot.stop()


def test_runs_and_experiments(server: Server, iris: str) -> None:
    experiments = json.loads(typed(server, "runs", "list", "--json"))
    with_runs = [
        item["id"] for item in experiments if json.loads(typed(server, "runs", "list", item["id"], "--json"))
    ]
    run = json.loads(typed(server, "runs", "list", with_runs[0], "--json"))[0]["id"]
    typed(server, "runs", "list", with_runs[0], says=run)
    typed(server, "runs", "show", run, says="status")


def test_rules_and_receivers_from_files(server: Server, tmp_path: Path) -> None:
    rule = json.loads(typed(server, "alerts", "rule", "show", "TargetOffline"))
    kept = {"kind", "parameters", "for_s", "severity", "selector", "labels", "annotations", "enabled"}
    file = tmp_path / "rule.json"
    file.write_text(json.dumps({name: rule[name] for name in kept}))
    typed(server, "alerts", "rule", "set", "Typed", "--file", str(file), says="is on")
    typed(server, "alerts", "rule", "try", "--file", str(file))
    typed(server, "alerts", "rule", "delete", "Typed", says="deleted")
    hook = tmp_path / "hook.toml"
    hook.write_text('kind = "webhook"\nurl = "https://example.com/hook"\n')
    typed(server, "alerts", "receiver", "set", "typed", "--file", str(hook), says="alerts test typed")
    typed(server, "alerts", "receiver", "show", "typed", says="webhook")
    typed(server, "alerts", "receiver", "sent", "typed", says="Nothing yet")
    typed(server, "alerts", "receiver", "delete", "typed", says="deleted")
    hook.write_bytes(b"\xff\xfe")
    typed(server, "alerts", "receiver", "set", "typed", "--file", str(hook), code=2)


def test_doctor_without_a_server_says_what_to_do() -> None:
    done = command("edgeflow", "doctor", "--server", "http://127.0.0.1:9", fails=True)
    assert done.returncode == 1
    assert "start `edgeflow server`" in done.stdout


def test_the_database_is_checked_and_brought_up_to_date(tmp_path: Path) -> None:
    done = command("edgeflow", "db", "check", folder=tmp_path, fails=True)
    assert "edgeflow db upgrade" in done.stderr
    assert "nothing to" in command("edgeflow", "db", "upgrade", folder=tmp_path).stdout
    assert "lock      free" in command("edgeflow", "db", "check", folder=tmp_path).stdout


def test_completion() -> None:
    assert "_EDGEFLOW_COMPLETE" in command("edgeflow", "completion", "bash").stdout
