"""What an operator does, in MLflow's real page, with real devices."""

from __future__ import annotations

import io
import re
from pathlib import Path

import mlflow
import mlflow.data
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from sklearn.linear_model import LogisticRegression

import edgeflow_mlflow
from edgeflow_mlflow.api import records
from tests.harness import Agent, deployed, tracking, until
from tests.ui.conftest import World

pytestmark = pytest.mark.timeout(180)
SLOWLY = 60_000


def go(world: World, page: Page, place: str) -> None:
    """Open one of our pages in MLflow's frame."""
    page.goto(f"{world.server.address}/#/edgeflow/{place}")


def confirm(page: Page, verb: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=verb).click()


def test_the_entry_stays_in_the_navigation(world: World, page: Page) -> None:
    page.goto(f"{world.server.address}/#/experiments")
    entry = page.locator("#root aside nav ul #edgeflow-nav")
    expect(entry).to_be_visible()
    for place in ("#/prompts", "#/models", "#/", "#/experiments"):
        page.evaluate("place => { location.hash = place }", place)
        page.wait_for_timeout(300)
        expect(entry).to_have_count(1)
        expect(page.locator("edgeflow-app")).to_have_count(0)
    entry.click()
    expect(page.get_by_role("heading", name="Fleet", exact=True)).to_be_visible()
    expect(entry).to_have_attribute("aria-current", "page")
    assert page.url.endswith("#/edgeflow")
    page.get_by_role("link", name="robot-01").click()
    expect(page.get_by_role("heading", name="robot-01")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="robot-01")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Fleet", exact=True)).to_be_visible()
    page.locator("#root aside nav").get_by_role("link", name="Experiments").click()
    expect(page.locator("edgeflow-app")).to_have_count(0)
    expect(page.locator("main.edgeflow-shown")).to_have_count(0)


def test_a_model_version_says_where_it_runs(world: World, page: Page) -> None:
    page.goto(f"{world.server.address}/#/models/arm/versions/1")
    note = page.locator("#edgeflow-note")
    expect(note).to_contain_text("Runs on 1 device")
    note.get_by_role("link").click()
    expect(page.get_by_role("link", name="robot-01")).to_be_visible()
    expect(page.get_by_role("link", name="camera-01")).to_have_count(0)


def test_a_device_appears_when_it_is_enrolled(world: World, page: Page) -> None:
    go(world, page, "enrol")
    page.get_by_label("Name of the device").fill("robot-new")
    page.get_by_label("Labels").fill("site=oslo")
    page.get_by_role("button", name="Create token").click()
    line = page.locator(".copy code").inner_text()
    expect(page.get_by_text("Waiting for it")).to_be_visible()
    found = re.search(r"--token (\S+) --target robot-new", line)
    assert found and world.server.address in line
    world.agents["robot-new"] = Agent(world.server, "robot-new", world.folder).enrol(found[1]).start()
    expect(page.locator(".arrivals").get_by_role("link", name="robot-new")).to_be_visible()
    expect(page.locator(".arrivals .badge", has_text="online")).to_be_visible()
    go(world, page, "fleet?selector=site%3Doslo")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_a_rollout_stops_on_failures_and_is_rolled_back(world: World, page: Page) -> None:
    go(world, page, "rollout?deployment=double")
    page.get_by_label("Version").select_option("2")
    page.get_by_label("my own").check()
    page.get_by_label("Numbers, shares or labels").fill("1; 100%")
    page.get_by_label("Watch each wave for").fill("0")
    page.get_by_label("Trial on each device").fill("1")
    page.get_by_label("of at least").fill("1")
    expect(page.get_by_label("Who gets it when").get_by_text("Wave 2")).to_be_visible()
    page.get_by_role("button", name="Begin the rollout").click()
    expect(page.get_by_role("dialog")).to_contain_text("Bring double version 2 to 2 devices?")
    confirm(page, "Begin")
    expect(page.get_by_role("heading", name="double")).to_be_visible()
    expect(page.get_by_text("Why it has stopped:")).to_be_visible(timeout=SLOWLY)
    expect(page.locator(".waves > li").first).to_contain_text("failed")
    expect(page.locator(".waves > li").nth(1)).to_contain_text("scheduled")
    page.get_by_role("button", name="Roll back").click()
    confirm(page, "Roll back")
    expect(page.get_by_text("Rollout 3")).to_be_visible(timeout=SLOWLY)
    expect(page.locator("h1 .badge")).to_have_text("succeeded", timeout=SLOWLY)
    until(lambda: world.agents["robot-02"].serves() == ("double", "1"), "version 1")


def test_drift_is_seen_told_and_silenced(world: World, page: Page) -> None:
    world.shift = 2.0
    go(world, page, "drift?model=arm 1")
    cell = page.get_by_role("button", name=re.compile("robot-01, heat: alarm"))
    expect(cell).to_be_visible(timeout=SLOWLY)
    cell.click()
    expect(page.locator("svg.histogram")).to_be_visible()
    expect(page.get_by_text("beyond the limit").first).to_be_visible()
    go(world, page, "alerts")
    alert = page.locator(".alerts li", has_text="TargetDrift").filter(has_text="robot-01")
    expect(alert).to_contain_text("firing")
    alert.get_by_role("button", name="Acknowledge").click()
    confirm(page, "Acknowledge")
    expect(alert).to_contain_text("looks after it")
    alert.get_by_role("button", name="Silence").click()
    confirm(page, "Silence")
    expect(alert).to_contain_text("silenced")
    go(world, page, "alerts?tab=silences")
    made = page.locator("tbody tr", has_text='target="robot-01"')
    expect(made).to_contain_text('alertname="TargetDrift"')


def test_a_rule_says_how_often_it_would_have_fired(world: World, page: Page) -> None:
    go(world, page, "alerts?tab=rules")
    page.get_by_role("button", name="New rule").click()
    page.get_by_label("Name").fill("Busy")
    page.get_by_label("Watches").select_option("throughput")
    page.get_by_label("above per s").fill("0.1")
    page.get_by_label("Must hold for").fill("0")
    expect(page.get_by_text("would have fired")).to_contain_text(re.compile(r"[1-9]\d* times?"))
    page.get_by_role("button", name="Save").click()
    expect(page.locator("tbody tr", has_text="Busy")).to_contain_text("own")


def test_lineage_is_walked_from_both_ends_and_compared(world: World, page: Page) -> None:
    go(world, page, "lineage?target=robot-01")
    expect(page.get_by_role("region", name="Version")).to_contain_text("arm 1")
    page.get_by_role("region", name="Data").get_by_role("link", name="arm-data").click()
    reached = page.get_by_role("region", name="Devices that serve them")
    expect(reached).to_contain_text("robot-01")
    reached.get_by_role("link", name="robot-01").click()
    expect(page.get_by_role("region", name="Run").get_by_role("link")).to_have_attribute(
        "href", re.compile("#/experiments/0/runs/")
    )
    go(world, page, "lineage?tab=diff")
    page.get_by_label("One side").fill("robot-01")
    page.get_by_label("Other side").fill("models:/double/1")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("table.sides").first).to_be_visible()


def test_a_device_is_asked_with_a_table_and_with_an_image(world: World, page: Page, tmp_path: Path) -> None:
    go(world, page, "targets/robot-01?tab=try")
    for name, value in (("speed", "0.5"), ("load", "0.25"), ("heat", "1")):
        page.get_by_label(re.compile(f"^{name}")).fill(value)
    page.get_by_role("button", name="Ask", exact=True).click()
    answer = page.locator("section.card", has_text="Answer")
    expect(answer).to_contain_text("arm version 1")
    expect(answer).to_contain_text("label")
    go(world, page, "targets/camera-01?tab=try")
    picture = io.BytesIO()
    Image.new("RGB", (1600, 1200), (10, 200, 30)).save(picture, "PNG")
    page.get_by_label("Image").set_input_files(
        {"name": "green.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    )
    expect(page.locator("form.card img")).to_be_visible()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(answer).to_contain_text("green")


def _log_wheel(data: str, seed: int) -> None:
    """A version of the model wheel, trained on a data set of that name."""
    rows = np.random.default_rng(seed).normal(size=(200, 2)).astype(np.float32)
    with mlflow.start_run():
        frame = pd.DataFrame(rows, columns=["grip", "slip"])
        mlflow.log_input(mlflow.data.from_pandas(frame, name=data), context="training")
        edgeflow_mlflow.log_model(
            LogisticRegression().fit(rows, rows.sum(axis=1) > 0), samples=rows, registered_model_name="wheel"
        )


def test_a_bad_data_set_is_recalled(world: World, page: Page) -> None:
    with tracking(world.server.address):
        _log_wheel("slippery", seed=1)
    client = world.server.client
    agent = world.agent("robot-wheel", {"site": "turin"})
    where = records.Place(targets=["robot-wheel"])
    client.create_deployment(records.DeploymentCreate(name="wheel", model_uri="models:/wheel/1", where=where))
    deployed(world.server, "wheel")
    with tracking(world.server.address):
        _log_wheel("dry", seed=2)
    until(lambda: client.model_version("wheel", "2").verdict == "deployable", "version 2 to be checked")
    go(world, page, "lineage?target=robot-wheel")
    page.get_by_role("region", name="Data").get_by_role("link", name="slippery").click()
    page.get_by_role("link", name="Recall this data").click()
    page.get_by_role("button", name="Show the plan").click()
    planned = page.locator("form.card tbody tr")
    expect(planned).to_have_count(1)
    expect(planned).to_contain_text("robot-wheel")
    expect(planned).to_contain_text("models:/wheel/2")
    page.get_by_label("Why").fill("the floor was wet")
    page.get_by_role("button", name="Recall from 1 device").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 device goes to a clean version")
    confirm(page, "Recall")
    made = page.locator("section.card", has_text="the floor was wet")
    expect(made).to_contain_text("slippery")
    expect(made.locator(".badge", has_text="done")).to_be_visible(timeout=SLOWLY)
    expect(made.locator("tbody tr")).to_contain_text("wheel/2", timeout=SLOWLY)
    until(lambda: agent.serves() == ("wheel", "2"), "the clean version")
    made.get_by_role("button", name="Lift").click()
    page.get_by_role("dialog").get_by_label("Why").fill("it was water, not oil")
    confirm(page, "Lift it")
    expect(made.locator(".badge", has_text="lifted")).to_be_visible()


def test_any_device_can_be_named(world: World, page: Page) -> None:
    go(world, page, "lineage")
    field = page.get_by_label("From a device back")
    field.fill("robot-01")
    field.press("Enter")
    expect(page.get_by_role("region", name="Version")).to_contain_text("arm 1")
