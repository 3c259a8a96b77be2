"""Every route, asked by every identity, with MLflow's basic-auth off and on: the table is the truth."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeflow_agent.wire import tokens
from edgeflow_mlflow.api.routing import Policy, Route
from edgeflow_mlflow.api.table import ROUTES
from tests.harness import Answer, Server, request

ADMIN, ADMIN_PASSWORD = "admin", "a-long-admin-password"
USERS = {"reader": "reader-password-123", "operator": "operator-password-123"}
PLACES = {"target_id": "robot-07", "execution_id": "0" * 32, "token_id": "0" * 16, "sha256": "0" * 64}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@dataclass
class World:
    """A server and every kind of caller of it."""

    server: Server
    auth: bool
    identities: dict[str, dict[str, str]] = field(default_factory=dict)

    def ask(self, method: str, rule: str, who: str, **more: Any) -> Answer:
        path = re.sub(r"<(\w+)>", lambda match: PLACES.get(match[1], "nothing"), rule)
        headers = {**self.identities[who], **more.pop("headers", {})}
        if method in ("POST", "PUT", "PATCH") and "body" not in more and "data" not in more:
            more["body"] = {}
        return request(method, f"{self.server.api}{path}", headers=headers, **more)


@pytest.fixture(scope="module", params=[False, True], ids=["open", "basic-auth"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("routes")
    environment = {"EDGEFLOW_MQTT_BROKER": "off"}
    if request.param:
        ini = folder / "auth.ini"
        ini.write_text(
            f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{folder}/auth.db\n"
            f"admin_username = {ADMIN}\nadmin_password = {ADMIN_PASSWORD}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(ini),
            "EDGEFLOW_SERVER_AUTH": "basic-auth",
            "EDGEFLOW_SERVER_OPERATORS": "operator",
        }
    server = Server(folder, environment=environment).start()
    made = World(server, request.param)
    admin = basic(ADMIN, ADMIN_PASSWORD) if made.auth else {}
    made.identities = {"anonymous": {}, "admin": admin, "garbage": {"Authorization": "Bearer nonsense"}}
    if made.auth:
        for name, password in USERS.items():
            answer = request_json(
                server, "POST", "/api/2.0/mlflow/users/create", admin, username=name, password=password
            )
            assert answer.status == 200, answer.body
            made.identities[name] = basic(name, password)
        made.identities["wrong password"] = basic("reader", "wrong")
    for target in ("robot-07", "robot-12"):
        token = made.ask("POST", "/tokens", "admin", body={}).json["token"]
        body = {"token": token, "target": target, "idempotency_key": f"key-of-{target}"}
        credential = made.ask("POST", "/enroll", "anonymous", body=body).json["credential"]
        made.identities[f"device {target}"] = {"Authorization": f"Bearer {credential}"}
    forged = tokens.format_credential(tokens.Credential("0" * 16, "0" * 64))
    made.identities["forged device"] = {"Authorization": f"Bearer {forged}"}
    yield made
    server.stop()


def request_json(server: Server, method: str, path: str, headers: dict[str, str], **body: object) -> Answer:
    return request(method, f"{server.address}{path}", body, headers=headers)


def expected(route: Route, who: str, auth: bool) -> set[int]:
    """The refusals that a caller gets, by the policy; empty: the request gets through to the handler."""
    device, forged = who.startswith("device"), who == "forged device"
    if route.policy is Policy.PUBLIC:
        return set()
    if route.policy is Policy.DEVICE:
        return set() if device else {401}
    if device:
        return {403}
    if forged:
        return {401}
    if not auth:
        return set()
    if who in ("anonymous", "garbage", "wrong password"):
        return {401}
    rights = {
        "admin": {Policy.READ, Policy.OPERATE, Policy.ADMIN},
        "operator": {Policy.READ, Policy.OPERATE},
        "reader": {Policy.READ},
    }[who]
    return set() if route.policy in rights else {403}


# Last, because they end things that other requests look at.
ORDER = sorted(ROUTES, key=lambda route: (route.rule.endswith("/revoke"), route.method == "DELETE"))


def test_every_route_with_every_identity(world: World) -> None:
    asked = left_out = 0
    for number, route in enumerate(ORDER):
        for turn, who in enumerate(world.identities):
            # MLflow takes a tenth of a second for each password: those who are let in nowhere take turns.
            if world.auth and who in ("wrong password", "garbage") and (number + turn) % 4:
                left_out += 1
                continue
            if route.rule.endswith("/revoke") and not expected(route, who, world.auth):
                continue  # it would end the identity of the walk; test_transports has it
            if (
                route.method == "DELETE"
                and route.rule == "/targets/<target_id>"
                and not expected(route, who, world.auth)
            ):
                continue
            answer = world.ask(route.method, route.rule, who)
            refusals = expected(route, who, world.auth)
            place = f"{route.method} {route.rule} as {who}: {answer.status} {answer.body[:200]!r}"
            if refusals:
                assert answer.status in refusals, place
            else:
                assert answer.status < 500, place
                assert answer.status != 401 or route.rule == "/enroll", place
                # What MLflow does not let a user see is refused by name, whether it exists or not.
                hidden = who in USERS and route.rule.startswith(("/models/", "/experiments/", "/runs"))
                assert answer.status != 403 or hidden, place
            if answer.status >= 400:
                assert set(answer.json) == {"error_code", "message"}, place
                assert answer.json["message"], place
            asked += 1
    assert asked + left_out > len(ROUTES) * len(world.identities) * 0.9


def test_every_rule_of_the_blueprint_is_in_the_table(world: World) -> None:
    document = world.ask("GET", "/openapi.json", "anonymous").json
    found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    table = {(route.method, re.sub(r"<(\w+)>", r"{\1}", route.rule)) for route in ROUTES}
    assert found == table
    assert world.ask("GET", "/healthz", "anonymous").status == 404
    answer = world.ask("PUT", "/tokens", "admin")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


def test_a_device_cannot_speak_for_another(world: World) -> None:
    answer = world.ask("GET", "/device/session", "device robot-12")
    assert answer.json["target"] == "robot-12"
    body = {"reports": [{"boot": "b", "seq": 1, "execution": "0" * 32, "generation": 1, "state": "failed"}]}
    assert world.ask("POST", "/device/reports", "device robot-12", body=body).status == 200


@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        ({"Content-Type": "text/plain"}, b'{"uses": 1}', 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"uses=1", 415),
        ({}, b'{"uses": 1}', 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"x", 415),
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, b"{}", 403),
        ({"Content-Type": "application/json", "Origin": "http://localhost:3000"}, b"{}", 403),
        ({"Content-Type": "application/json", "Origin": "null"}, b"{}", 403),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, b"{}", 403),
        ({"Content-Type": "application/json", "Host": "evil.example"}, b"{}", 403),
        ({"Content-Type": "application/json", "Host": "10.attacker.example"}, b"{}", 403),
        ({"Content-Type": "application/json", "Host": "127.0.0.1.nip.example"}, b"{}", 403),
        ({"Content-Type": "application/json"}, b"{", 400),
        ({"Content-Type": "application/json"}, b"[" * 100_000, 400),
        ({"Content-Type": "application/json"}, b'{"uses": "1"}', 400),
        ({"Content-Type": "application/json"}, b'{"usses": 1}', 400),
        ({"Content-Type": "application/json"}, b'{"uses": 0}', 400),
        ({"Content-Type": "application/json"}, b'{"uses": 1e400}', 400),
        ({"Content-Type": "application/json"}, b'{"labels": {"a b": "x"}}', 400),
        ({"Content-Type": "application/json"}, b'{"note": "' + b"x" * 300 + b'"}', 400),
        ({"Content-Type": "application/json"}, b'"' + b"x" * 2_000_000 + b'"', 413),
    ],
)
def test_what_changes_nothing(world: World, headers: dict[str, str], data: bytes, status: int) -> None:
    before = len(world.ask("GET", "/tokens", "admin").json["tokens"])
    answer = world.ask("POST", "/tokens", "admin", headers=headers, data=data)
    assert answer.status == status, answer.body
    assert len(world.ask("GET", "/tokens", "admin").json["tokens"]) == before


def test_a_page_of_our_own_may(world: World) -> None:
    own = {"Origin": f"http://127.0.0.1:{world.server.port}", "Sec-Fetch-Site": "same-origin"}
    assert world.ask("POST", "/tokens", "admin", body={}, headers=own).status == 200


def test_bodies_are_bounded_before_they_are_in_memory(world: World) -> None:
    """Chunked, so that no length is declared, and far over the limit."""
    assert world.server.process.popen is not None
    process = psutil.Process(world.server.process.popen.pid)
    before = process.memory_info().rss
    for path in ("/api/v1/tokens", "/nothing-here"):
        status = send_without_end(world.server.port, path, 200 * 2**20)
        assert status == 413
    assert process.memory_info().rss - before < 150 * 2**20


def send_without_end(port: int, path: str, size: int) -> int:
    """Send a chunked body until the server has had enough; its status."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(size // 65536):
                link.sendall(chunk)
        try:
            return int(link.recv(4096).split()[1])
        except (OSError, IndexError):
            return 413  # it hung up while we still sent, which refuses as well


def test_lists_are_paged(world: World) -> None:
    names = []
    token = ""
    while True:
        page = world.ask("GET", f"/targets?limit=1&page_token={token}", "admin").json
        names += [item["id"] for item in page["targets"]]
        token = page["next_page_token"]
        if not token:
            break
    assert names == ["robot-07", "robot-12"]
    for bad in ("limit=0", "limit=501", "limit=x", "limits=3", "limit=1&limit=2", "selector=%2A"):
        assert world.ask("GET", f"/targets?{bad}", "admin").status == 400


def test_mlflow_itself_is_as_open_or_closed_as_before(world: World) -> None:
    path = "/api/2.0/mlflow/experiments/search"
    closed = request_json(world.server, "POST", path, {}, max_results=5)
    assert closed.status == (401 if world.auth else 200)
    opened = request_json(world.server, "POST", path, world.identities["admin"], max_results=5)
    assert opened.status == 200


def test_the_log_holds_no_secret(world: World) -> None:
    said = world.server.process.text()
    for headers in world.identities.values():
        secret = headers.get("Authorization", "").partition(" ")[2]
        assert not secret or secret not in said
    assert not tokens.SECRET.search(said)
    for path in world.server.folder.rglob("*"):
        if path.is_file() and path.suffix == ".db":
            assert not tokens.SECRET.search(path.read_bytes().decode("latin-1"))


def test_mlflow_permissions_govern_what_a_user_sees(world: World) -> None:
    if not world.auth:
        assert world.ask("GET", "/experiments", "anonymous").json["experiments"]
        return
    made = {}
    for who in ("admin", "reader"):
        answer = request_json(
            world.server,
            "POST",
            "/api/2.0/mlflow/experiments/create",
            world.identities[who],
            name=f"of {who}",
        )
        made[who] = answer.json["experiment_id"]
    seen = [item["id"] for item in world.ask("GET", "/experiments", "reader").json["experiments"]]
    assert seen == [made["reader"]], "who creates an experiment may see it, and nobody else but admins"
    for who, experiment, status in (
        ("reader", made["reader"], 200),
        ("reader", made["admin"], 403),
        ("admin", made["reader"], 200),
    ):
        url = f"{world.server.api}/experiments/{experiment}"
        assert request("GET", url, headers=world.identities[who]).status == status


def test_history_knows_who(world: World) -> None:
    world.ask("POST", "/tokens", "admin", body={"note": "whose"})
    found = [item for item in world.ask("GET", "/tokens", "admin").json["tokens"] if item["note"] == "whose"]
    assert found[0]["created_by"] == (ADMIN if world.auth else "anonymous")
