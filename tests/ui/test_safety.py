"""What devices say is never markup, and everybody can use the pages: readers, keyboards, narrow screens."""

from __future__ import annotations

import uuid

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from edgeflow_mlflow.api import records
from tests.harness import request
from tests.ui.conftest import World, loaded, turned

pytestmark = pytest.mark.timeout(240)

# Each would set `hit` where it is taken for markup or code.
_RUN = "window.hit=1"
PAYLOADS = [
    f"<script>{_RUN}</script>",
    f"<img src=x onerror={_RUN}>",
    f"<svg onload={_RUN}>",
    f"<svg><script>{_RUN}</script></svg>",
    f"<body onload={_RUN}>",
    f"<iframe srcdoc='<script>parent.{_RUN}</script>'>",
    f"<iframe src='javascript:parent.{_RUN}'>",
    f"<details open ontoggle={_RUN}>x</details>",
    f"<video><source onerror={_RUN}></video>",
    f"<audio src=x onerror={_RUN}>",
    f"<input autofocus onfocus={_RUN}>",
    f"<select autofocus onfocus={_RUN}>",
    f"<textarea autofocus onfocus={_RUN}>",
    f"<marquee onstart={_RUN}>x</marquee>",
    f"<object data='javascript:{_RUN}'>",
    f"<embed src='javascript:{_RUN}'>",
    f"<a href='javascript:{_RUN}' autofocus>x</a>",
    f"<form><button formaction='javascript:{_RUN}'>x</button></form>",
    f"<math><mi xlink:href='javascript:{_RUN}'>x</mi></math>",
    f"<style>@import 'javascript:{_RUN}'</style>",
    f"<style onload={_RUN}></style>",
    f"<link rel=stylesheet href=x onerror={_RUN}>",
    f"<base href='javascript:{_RUN}//'>",
    f"<meta http-equiv=refresh content='0;url=javascript:{_RUN}'>",
    f"'\"><script>{_RUN}</script>",
    f'"><img src=x onerror={_RUN}>',
    f"' onmouseover={_RUN} x='",
    f'" autofocus onfocus={_RUN} x="',
    f"</title><script>{_RUN}</script>",
    f"</textarea><script>{_RUN}</script>",
    f"</style><script>{_RUN}</script>",
    f"--><script>{_RUN}</script>",
    f"]]><script>{_RUN}</script>",
    f"javascript:{_RUN}",
    f"data:text/html,<script>parent.{_RUN}</script>",
    f"{{@html '<img src=x onerror={_RUN}>'}}",
    f"{{{{constructor.constructor('{_RUN}')()}}}}",
    f"${{{_RUN}}}",
    "<img src=x onerror=&#119;indow.hit=1>",
    f"<template><script>{_RUN}</script></template><p style=animation-name:x onanimationstart={_RUN}>",
]
PLACES = [
    "fleet", "targets/robot-01", "targets/robot-01?tab=drift", "targets/robot-01?tab=try",
    "targets/robot-01?tab=history", "deployments", "deployments/double", "rollout?model=arm&selector=site",
    "drift", "alerts", "alerts?tab=rules&edit=ErrorRate", "alerts?tab=silences", "alerts?tab=receivers",
    "lineage?target=robot-01", "lineage?tab=diff", "lineage?tab=recalls", "enrol",
]  # fmt: skip
_WORDS = ("model", "version", "agent_version", "onnxruntime_version", "platform", "hostname")


def hostile(world: World, name: str, payloads: list[str]) -> None:
    """A device that says them in every field that it can write, for which no format is laid down."""
    client, server = world.server.client, world.server
    token = client.create_token(records.TokenCreate(labels={"hostile": "yes"})).token
    body = {"token": token, "target": name, "idempotency_key": uuid.uuid4().hex}
    credential = request("POST", f"{server.api}/enroll", {**body, "hostname": payloads[0]}).json["credential"]
    deployment = records.DeploymentCreate(
        name=name, model_uri="models:/double/1", where=records.Place(targets=[name])
    )
    client.create_deployment(deployment)
    (execution,) = client.deployment(name).executions
    presence = {word: payloads[turn % len(payloads)] for turn, word in enumerate(_WORDS)}
    presence |= {"kind": "heartbeat", "boot": "b", "infer_url": payloads[-1], "deployment": payloads[0]}
    report = {
        "boot": "b", "seq": 1, "execution": execution.id, "generation": execution.generation,
        "state": "failed", "reason": payloads[1], "message": " ".join(payloads),
    }  # fmt: skip
    said = request(
        "POST",
        f"{server.api}/device/reports",
        {"presence": presence, "reports": [report]},
        headers={"Authorization": f"Bearer {credential}"},
    )
    assert said.status == 200, said.body
    assert said.json["stored"]


def test_nothing_that_a_device_says_is_run(world: World, page: Page) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    assert len(PAYLOADS) == 40
    for number in range(8):
        hostile(world, f"hostile-{number}", PAYLOADS[number * 5 : number * 5 + 5])
    api = world.server.client
    silence = records.SilenceCreate(
        matchers=["target=hostile-0"], duration_s=600, comment=" ".join(PAYLOADS)[:1000]
    )
    request(
        "POST",
        f"{world.server.api}/silences",
        {"matchers": silence.matchers, "duration_s": 600, "comment": silence.comment},
    )
    api.label("hostile-0", {"hostile": "yes"})
    for number in range(8):
        for place in (
            f"targets/hostile-{number}?tab=history",
            f"deployments/hostile-{number}",
        ):
            page.goto(f"{world.server.address}/#/edgeflow/{place}")
            expect(page.locator("edgeflow-app h1").first).to_contain_text(f"hostile-{number}")
            loaded(page)
    for place in (
        "fleet",
        "fleet?selector=hostile",
        "deployments",
        "alerts",
        "alerts?tab=silences",
        "lineage?target=hostile-0",
    ):
        page.goto(f"{world.server.address}/#/edgeflow/{place}")
        loaded(page)
        assert page.evaluate("window.hit") is None, place
    page.goto(f"{world.server.address}/#/edgeflow/fleet?selector=hostile")
    expect(page.locator("edgeflow-app tbody").get_by_text(PAYLOADS[0]).first).to_be_visible()
    page.goto(f"{world.server.address}/edgeflow/#/edgeflow/fleet?selector=hostile")
    expect(page.locator("edgeflow-app tbody").get_by_text(PAYLOADS[0]).first).to_be_visible()
    assert page.evaluate("window.hit") is None
    assert dialogs == []
    for number in range(8):
        api.delete_deployment(f"hostile-{number}", keep_serving=True)


def _violations(page: Page) -> list[tuple[str, list[object], str]]:
    """What axe finds on it now that keeps somebody from using it."""
    answer = Axe().run(page, context="edgeflow-app", options={"resultTypes": ["violations"]})
    return [
        (item["id"], [node["target"] for node in item["nodes"]][:3], item["nodes"][0]["failureSummary"])
        for item in answer.response["violations"]
        if item["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_page_has_a_serious_violation(world: World, page: Page, dark: bool) -> None:
    page.add_init_script(f"localStorage.setItem('_mlflow_dark_mode_toggle_enabled', '{str(dark).lower()}')")
    found = {}
    for place in (
        PLACES if not dark else ("fleet", "targets/robot-01?tab=drift", "drift", "alerts", "rollout")
    ):
        page.goto(f"{world.server.address}/#/edgeflow/{place}")
        loaded(page)
        if bad := _violations(page):
            found[place] = bad
    assert not found, found


def test_a_page_that_waits_has_no_serious_violation(world: World, page: Page) -> None:
    page.route("**/api/v1/**", lambda route: None)
    for place in PLACES:
        page.goto(f"{world.server.address}/#/edgeflow/{place}")
        turned(page)
        expect(page.locator("edgeflow-app h1, edgeflow-app [aria-busy=true]").first).to_be_visible()
        assert not _violations(page), place


@pytest.mark.parametrize(("width", "height"), [(390, 844), (2560, 1440)])
def test_no_screen_needs_scrolling_sideways(world: World, page: Page, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    wide = {}
    for place in PLACES:
        page.goto(f"{world.server.address}/edgeflow/#/edgeflow/{place}")
        loaded(page)
        taken = page.evaluate("document.documentElement.scrollWidth")
        if taken > width:
            wide[place] = taken
    assert not wide, wide


def test_a_lost_server_says_since_when_and_comes_back(world: World, page: Page) -> None:
    page.goto(f"{world.server.address}/#/edgeflow/fleet")
    expect(page.get_by_role("link", name="robot-01")).to_be_visible()
    page.route("**/api/v1/**", lambda route: route.abort())
    lost = page.get_by_text("the server does not answer").first
    expect(lost).to_be_visible()
    expect(lost).to_contain_text("ago")
    expect(page.get_by_role("link", name="robot-01")).to_be_visible()
    page.unroute("**/api/v1/**")
    page.get_by_role("button", name="Try again").first.click()
    expect(page.get_by_text("the server does not answer")).to_have_count(0)


def test_a_page_that_nobody_sees_asks_nothing(world: World, page: Page) -> None:
    page.goto(f"{world.server.address}/#/edgeflow/fleet")
    expect(page.get_by_role("link", name="robot-01")).to_be_visible()
    page.evaluate(
        "Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(500)
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url) if "/api/v1/" in sent.url else None)
    page.wait_for_timeout(5200)
    assert asked == []
