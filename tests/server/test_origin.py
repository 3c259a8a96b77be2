"""What is refused because of where it says that it comes from, through Flask as it runs in the server."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import blueprint, origin
from edgeflow_mlflow.catalog import Catalog
from edgeflow_mlflow.services import enrol, lease
from edgeflow_mlflow.services.state import State


@pytest.fixture
def client(state: State) -> FlaskClient:
    def never() -> None:
        raise AssertionError("MLflow is not asked here")

    app = Flask("test")
    catalog = Catalog(tracking=never, registry=never, repository=lambda uri: (None, uri))
    blueprint.install(app, prefix="", state=state, catalog=catalog, access=blueprint.Access())
    return app.test_client()


@pytest.mark.parametrize("host", ["[", "[::1", "]", "[x]", "evil.example", "evil.example:80", "a b", ""])
def test_a_host_that_is_none_of_ours_is_refused(client: FlaskClient, host: str) -> None:
    answer = client.get("/api/v1/health", headers={"Host": host})
    assert answer.status_code in (400, 403), answer.data
    with pytest.raises(errors.ForbiddenError):
        origin.check_host(host, ())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:5000", "[::1]:5000", "localhost:5000"])
def test_an_address_is_taken(client: FlaskClient, host: str) -> None:
    assert client.get("/api/v1/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("value", ["http://[", "http://evil.example", "null", "http://[::1", "//"])
def test_a_change_from_another_origin_is_refused(client: FlaskClient, value: str) -> None:
    answer = client.post("/api/v1/tokens", json={}, headers={"Origin": value})
    assert answer.status_code == 403, answer.data
    same = client.post("/api/v1/tokens", json={}, headers={"Origin": "http://localhost"})
    assert same.status_code in (200, 201), same.data


@pytest.mark.parametrize(
    ("host", "broker", "told"),
    [
        ("127.0.0.1:5000", "mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:1883"),
        ("192.0.2.7:5000", "mqtt://127.0.0.1:1883", ""),
        ("192.0.2.7:5000", "mqtts://192.0.2.7:8883", "mqtts://192.0.2.7:8883"),
    ],
)
def test_a_device_elsewhere_is_not_sent_to_itself(
    client: FlaskClient, state: State, host: str, broker: str, told: str
) -> None:
    fence = lease.take(state, "hub", alone_on=None)
    assert fence is not None
    lease.renew(state, fence, {"mqtt": broker})
    token = enrol.create_token(
        state, uses=1, ttl=timedelta(hours=1), labels={}, target=None, note="", actor="me"
    ).text
    asked = {"token": token, "target": "robot-07", "idempotency_key": "key-00000001"}
    answer = client.post("/api/v1/enroll", json=asked, headers={"Host": host})
    assert answer.status_code == 200, answer.data
    assert (answer.json or {}).get("mqtt", "") == told
