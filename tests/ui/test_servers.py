"""The tab behind MLflow's basic-auth and a prefix, and in the oldest and newest MLflow."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.harness import ROOT, Process, Server, free_port, request, until
from tests.ui.conftest import _CALM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ADMIN, ADMIN_PASSWORD = "admin", "a-long-admin-password"
READER, READER_PASSWORD = "reader", "reader-password-123"


@pytest.fixture(params=["", "/ml"], ids=["plain", "prefix"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server that asks for names."""
    ini = tmp_path / "auth.ini"
    ini.write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{tmp_path}/auth.db\n"
        f"admin_username = {ADMIN}\nadmin_password = {ADMIN_PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {"MLFLOW_AUTH_CONFIG_PATH": str(ini), "EDGEFLOW_SERVER_AUTH": "basic-auth"}
    server = Server(tmp_path / "server", environment=environment, prefix=request.param)
    yield server.start()
    server.stop()


def test_an_admin_and_a_reader_see_what_they_may(guarded: Server, browser: Browser) -> None:
    assert request("GET", f"{guarded.address}/edgeflow/").status == 401
    admin = {"username": ADMIN, "password": ADMIN_PASSWORD}
    reader = {"username": READER, "password": READER_PASSWORD}
    made = browser.new_context(http_credentials=admin)
    said = made.request.post(
        f"{guarded.address}/api/2.0/mlflow/users/create",
        data=reader,
        headers={"Content-Type": "application/json"},
    )
    assert said.ok, said.text()
    made.close()
    for who, name in ((admin, "admin"), (reader, "reader")):
        context = browser.new_context(http_credentials=who)  # type: ignore[arg-type]
        context.add_init_script(_CALM)
        page = context.new_page()
        page.goto(f"{guarded.address}/")
        page.locator("#edgeflow-nav").click()
        expect(page.get_by_text("No device is enrolled yet")).to_be_visible()
        page.goto(f"{guarded.address}/edgeflow/#/edgeflow/enrol")
        if name == "admin":
            page.get_by_role("button", name="Create token").click()
            expect(page.locator(".copy code")).to_contain_text(f"--server {guarded.address} ")
        else:
            expect(page.get_by_text("Only an MLflow admin can let devices in")).to_be_visible()
            page.goto(f"{guarded.address}/edgeflow/#/edgeflow/alerts?tab=rules")
            expect(page.get_by_role("button", name="Switch off").first).to_be_disabled()
        context.close()


@pytest.mark.parametrize("wanted", ["mlflow==3.15.*", "mlflow>=3.15,<4"], ids=["lowest", "newest"])
def test_the_entry_is_there_in_every_supported_mlflow(wanted: str, browser: Browser, tmp_path: Path) -> None:
    programs = tmp_path / "venv" / "bin"
    for words in (
        [sys.executable, "-m", "venv", str(tmp_path / "venv")],
        [str(programs / "pip"), "install", "-q", str(ROOT), wanted],
    ):
        made = Process(words, tmp_path, "install")
        made.start()
        until(lambda made=made: not made.running, "the installation", 800)  # type: ignore[misc]
        assert made.code == 0, made.text()
    port = free_port()
    words = [
        str(programs / "mlflow"),
        "server",
        "--app-name",
        "edgeflow",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    server = Process(words, tmp_path / "server", "server", {"EDGEFLOW_MQTT_PORT": "0"})
    server.start()
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: request("GET", f"{address}/api/v1/health").status == 200, "the server", 120)
        page = browser.new_page()
        page.add_init_script(_CALM)
        page.goto(f"{address}/#/experiments")
        entry = page.locator("#root aside nav ul #edgeflow-nav")
        entry.click()
        expect(page.get_by_text("No device is enrolled yet")).to_be_visible()
        expect(entry).to_have_attribute("aria-current", "page")
        expect(page).to_have_title(re.compile("Edgeflow"))
        page.close()
    finally:
        server.stop()
