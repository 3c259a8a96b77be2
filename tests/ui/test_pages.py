"""How the tab is served, without a browser: its files, its page, and the line in MLflow's."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import responses
from edgeflow_mlflow.plugin import compat
from edgeflow_mlflow.ui import bundle, pages
from tests.harness import ROOT

MLFLOW = "<!doctype html><html><head><title>MLflow</title></head><body></body></html>"
MOST_PACKED = 150_000


def app_with(prefix: str = "", user: object = None, page: str = MLFLOW) -> FlaskClient:
    app = Flask(__name__)
    app.add_url_rule(f"{prefix}/", "serve", lambda: page)
    pages.install(app, prefix=prefix, allowed_hosts=(), user=user)  # type: ignore[arg-type]
    app.register_error_handler(errors.ServerError, responses.of_error)
    compat.extend_page(app, pages.into)
    return app.test_client()


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    with app_with() as opened:
        yield opened


@pytest.mark.parametrize("script", ["ui_types.py", "ui_stamp.py"])
def test_what_is_committed_was_made_from_what_is_committed(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_bundle_is_small_enough() -> None:
    packed = sum(len(bundle.asset(name).packed) for name in bundle.names())  # type: ignore[union-attr]
    assert 20_000 < packed < MOST_PACKED


@pytest.mark.parametrize("prefix", ["", "/ml"])
def test_the_page_of_mlflow_gets_one_line(prefix: str) -> None:
    with app_with(prefix) as client:
        answer = client.get(f"{prefix}/")
        (source,) = re.findall(r'<script type="module" src="([^"]+)"></script></head>', answer.text)
        assert answer.text.replace(pages.line(), "") == MLFLOW
        asset = client.get(f"{prefix}/{source}")
        assert asset.status_code == 200
        assert asset.content_type.startswith("text/javascript")
        again = client.get(f"{prefix}/", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304


@pytest.mark.parametrize("page", ["", "no page at all", "<html><body></body></html>"])
def test_a_page_that_is_not_known_stays_as_it_is(page: str) -> None:
    with app_with(page=page) as client:
        assert client.get("/").text == page


def test_an_mlflow_without_the_view_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    compat.extend_page(Flask(__name__), pages.into)
    assert "/edgeflow/ only" in caplog.text


def test_the_own_page_is_closed_to_all_but_this_server(client: FlaskClient) -> None:
    assert client.get("/edgeflow").headers["Location"].endswith("/edgeflow/")
    answer = client.get("/edgeflow/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    (script,) = re.findall(r'src="(static/[^"]+)"', answer.text)
    assert client.get(f"/edgeflow/{script}").status_code == 200


def test_files_are_kept_for_ever_and_travel_packed(client: FlaskClient) -> None:
    for name in bundle.names():
        plain = client.get(f"/edgeflow/static/{name}")
        packed = client.get(f"/edgeflow/static/{name}", headers={"Accept-Encoding": "gzip"})
        assert "immutable" in plain.headers["Cache-Control"]
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.data) == plain.data
    named = json.loads((bundle.FOLDER / "manifest.json").read_text())
    assert all(re.search(r"-[\w-]{8}\.js$", item["file"]) for item in named.values())


@pytest.mark.parametrize("name", ["manifest.json", "sources.sha256", "..%2fpages.py", "nothing.js"])
def test_nothing_else_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/edgeflow/static/{name}").status_code == 404


def test_another_name_of_the_host_is_refused(client: FlaskClient) -> None:
    assert client.get("/edgeflow/", headers={"Host": "evil.example"}).status_code == 403


def test_with_basic_auth_the_page_asks_for_a_name_and_its_files_do_not() -> None:
    def nobody() -> tuple[str, bool]:
        raise errors.UnauthenticatedError("who?")

    with app_with(user=nobody) as client:
        answer = client.get("/edgeflow/")
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert client.get(f"/edgeflow/static/{bundle.entry(bundle.ALONE)}").status_code == 200
    with app_with(user=lambda: ("reader", False)) as client:
        assert client.get("/edgeflow/").status_code == 200
