"""The fleet at a glance, rollouts before they begin, and rules tried on the past."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from edgeflow_agent.wire.documents import Presence, PresenceKind
from edgeflow_agent.wire.states import State as Step
from edgeflow_agent.wire.telemetry import LATENCY_BUCKETS
from edgeflow_mlflow.api import blueprint
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import health
from edgeflow_mlflow.domain.health import Facts, Flag
from edgeflow_mlflow.services import control, deploy, ingest, revisions
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_bundle, add_target

_SEQ = itertools.count(1)


@pytest.fixture
def http(state: State) -> Iterator[FlaskClient]:
    app = Flask("test")
    blueprint.install(app, prefix="", state=state, catalog=None, access=blueprint.Access())  # type: ignore[arg-type]
    with app.test_client() as client:
        yield client


def get(http: FlaskClient, path: str, status: int = 200) -> Any:
    answer = http.get(f"/api/v1{path}")
    assert answer.status_code == status, answer.text
    return answer.json


def post(http: FlaskClient, path: str, body: Any, status: int = 200) -> Any:
    answer = http.post(f"/api/v1{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json


def hello(state: State, name: str, **said: Any) -> None:
    presence = Presence(kind=PresenceKind.HEARTBEAT, boot="b", **said)
    ingest.presence(state, name, presence, connected=True)


def window(state: State, target: str, **change: Any) -> None:
    """A minute of telemetry that ends now."""
    now = state.now()
    usual = {
        "target_id": target, "boot": "b", "seq": next(_SEQ), "start_at": now - timedelta(minutes=1),
        "end_at": now, "received_at": now, "seconds": 60.0, "model_name": "iris", "model_version": "1",
        "requests": 100, "failed": 0, "outcomes": {}, "latency_counts": [0] * (len(LATENCY_BUCKETS) + 1),
    }  # fmt: skip
    with state.database.write() as session:
        session.add(models.Window(**{**usual, **change}))


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (Facts(was_seen=False, is_online=False), {Flag.NEVER_SEEN}),
        (Facts(was_seen=True, is_online=False), {Flag.OFFLINE}),
        (Facts(was_seen=True, is_online=True), {Flag.ONLINE}),
        (Facts(was_seen=True, is_online=True, in_sync=False), {Flag.ONLINE, Flag.BEHIND}),
        (
            Facts(was_seen=True, is_online=True, in_sync=False, step=Step.DOWNLOADING),
            {Flag.ONLINE, Flag.UPDATING},
        ),
        (Facts(was_seen=True, is_online=False, in_sync=False), {Flag.OFFLINE}),
        (
            Facts(was_seen=True, is_online=True, step=Step.ROLLED_BACK, drift_alarms=2, is_held=True),
            {Flag.ONLINE, Flag.FAILING, Flag.DRIFTING, Flag.HELD},
        ),
        (Facts(was_seen=True, is_online=True, is_stale=True, step=Step.DEPLOYED), {Flag.ONLINE, Flag.STALE}),
    ],
)
def test_flags(facts: Facts, wanted: set[Flag]) -> None:
    assert set(health.flags(facts)) == wanted


def test_the_fleet_counted(state: State, clock: Clock, http: FlaskClient) -> None:
    bundle = add_bundle(state)
    for name in ("a", "b", "c", "d"):
        add_target(state, name, site="lyon" if name < "c" else "turin")
    deploy.create(
        state,
        "iris",
        where=deploy.Where(targets=("a", "b")),
        what=revisions.What(bundle_id=bundle.id, model_uri="models:/iris/1"),
        actor="anna",
    )
    hello(state, "c", model="iris", version="9", digest="other")
    clock.pass_by(hours=1)
    hello(state, "a", model="iris", version="1", digest=bundle.digest)
    control.hold(state, "d", why="", actor="anna")
    verdict = models.Drift(
        scope="target", scope_id="a", digest=bundle.digest, baseline_sha256="b", feature="heat", kind="input",
        model_name="iris", model_version="1", status="drift", significant=True, alarm=True, evaluations=3,
        n=500, signals=[], history=[], from_at=clock.now, to_at=clock.now, updated_at=clock.now,
    )  # fmt: skip
    with state.database.write() as session:
        session.add(verdict)
    found = get(http, "/overview")
    assert found["targets"] == 4
    assert found["flags"] == {
        "online": 1, "offline": 1, "never_seen": 2, "drifting": 1, "updating": 2, "held": 1
    }  # fmt: skip
    assert {(item["model"], item["version"]): item["targets"] for item in found["versions"]} == {
        ("", ""): 2, ("iris", "1"): 1, ("iris", "9"): 1
    }  # fmt: skip
    assert found["may"] == ["admin", "operate", "read"]
    assert get(http, "/overview?selector=site%3Dturin")["targets"] == 2

    def ids(query: str) -> list[str]:
        return [item["id"] for item in get(http, f"/overview/targets?{query}")["targets"]]

    assert ids("flag=updating") == ["a", "b"]
    assert ids("model=iris&version=9") == ["c"]
    assert ids("selector=site%3Dlyon&flag=never_seen") == ["b"]
    first = get(http, "/overview/targets?limit=3")
    assert [item["id"] for item in first["targets"]] == ["a", "b", "c"]
    assert ids(f"limit=3&page_token={first['next_page_token']}") == ["d"]
    (row,) = get(http, "/overview/targets?flag=drifting")["targets"]
    assert (row["deployment"], row["drift_alarms"], row["step"]) == ("iris", 1, "pending")
    get(http, "/overview/targets?flag=sad", 400)
    get(http, "/overview?selector=%3D%3D", 400)


def test_a_rollout_before_it_begins(state: State, http: FlaskClient) -> None:
    for number in range(10):
        add_target(state, f"r{number}", ring="canary" if number < 2 else "rest")
    hello(state, "r5")
    control.hold(state, "r9", why="", actor="anna")
    found = post(http, "/overview/rollout", {"where": {"selector": "ring"}, "waves": ["ring=canary", "50%"]})
    assert [wave["targets"] for wave in found["waves"]] == [2, 3, 5]
    assert found["waves"][0]["some"] == ["r0", "r1"]
    assert "r5" in found["waves"][1]["some"], "who is online comes first"
    assert (found["targets"], found["online"], found["held"]) == (10, 1, 1)
    whole = post(http, "/overview/rollout", {"where": {"targets": ["r1", "r2"]}})
    assert [(wave["targets"], wave["is_drawn"]) for wave in whole["waves"]] == [(2, False)]
    post(http, "/overview/rollout", {"where": {"fleet": "none"}}, 404)
    post(http, "/overview/rollout", {"where": {}}, 400)
    post(http, "/overview/rollout", {"where": {"selector": "ring"}, "waves": ["50%", "10%"]}, 400)


def test_a_rule_tried_on_the_past(state: State, clock: Clock, http: FlaskClient) -> None:
    add_target(state, "robot-07")
    hello(state, "robot-07")
    for minute in range(240):
        clock.pass_by(minutes=1)
        window(state, "robot-07", failed=50 if minute in range(60, 80) or minute in range(150, 155) else 0)
    rule = {"kind": "error_rate", "parameters": {"above": 0.3, "minutes": 1, "min_requests": 10}}
    often = post(http, "/alert-rules/try", rule)
    assert (often["can_tell"], often["times"], often["objects"]) == (True, 2, 1)
    held = post(http, "/alert-rules/try", {**rule, "for_s": 600})
    assert held["times"] == 1
    strict = {**rule, "parameters": {**rule["parameters"], "above": 0.6}}  # type: ignore[dict-item]
    assert post(http, "/alert-rules/try", strict)["times"] == 0
    assert post(http, "/alert-rules/try", {**rule, "model": "other"})["times"] == 0
    slow = {"kind": "latency", "parameters": {"above_s": 0.5, "min_requests": 10}}
    assert post(http, "/alert-rules/try", slow)["times"] == 0
    assert post(http, "/alert-rules/try", {"kind": "wrong_version"})["can_tell"] is False
    post(http, "/alert-rules/try", {"kind": "nonsense"}, 400)
    with state.database.read() as session:
        assert session.query(models.AlertRule).count() == 0
