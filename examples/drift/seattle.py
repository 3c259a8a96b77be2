"""A model of Seattle's winter meets its summer: real data with a known shift, and the alert that follows.

    pip install vega_datasets
    python examples/drift/seattle.py [--picture seattle.svg]

The data are NOAA's hourly temperatures of Seattle, as the package vega_datasets carries them. A model learns
in January and February to say how warm it will be six hours later; a device then serves it on winter hours
that it has not seen, and in July. Everything is real: server, agent, requests, the webhook that is told.
"""

from __future__ import annotations

import argparse
import http.server
import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

import mlflow
import numpy as np
import pandas as pd
from demo import Stage, console, fetch, staged, until
from sklearn.linear_model import LinearRegression
from vega_datasets import local_data

from edgeflow_mlflow import log_model
from edgeflow_mlflow.api import records
from edgeflow_mlflow.client import Client

ROBOT = "weather-mast"
COLUMNS = ["temperature", "change", "hour"]
WINDOW_S = 2.0
# An evaluation needs 500 rows: each window has some more.
ROWS = 600


def hours() -> pd.DataFrame:
    """Temperature in degrees Fahrenheit, its change within an hour, the hour, and what it is six hours on."""
    data = local_data.seattle_temps()
    found = pd.DataFrame(
        {
            "date": data.date,
            "temperature": data.temp,
            "change": data.temp.diff(),
            "hour": data.date.dt.hour.astype(float),
            "later": data.temp.shift(-6),
        }
    )
    return found.dropna()


class Hook(http.server.BaseHTTPRequestHandler):
    """Prints what the server tells of alerts, and remembers it."""

    told: list[dict[str, Any]] = []  # noqa: RUF012 - one for all

    def do_POST(self) -> None:
        """One notification."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.told.append(body)
        for alert in body["alerts"]:
            text = alert["annotations"].get("summary", "")
            console.print(f"  [bold red]{alert['status'].upper()}[/] {alert['labels']['alertname']}: {text}")
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing."""


def start(stage: Stage) -> tuple[Client, str]:
    """A server and one device; a client, and where the device answers."""
    stage.start(
        "server", "mlflow", "server", "--app-name", "edgeflow", "--workers", "1",
        "--port", str(urlsplit(stage.address).port), EDGEFLOW_MQTT_PORT="0",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", EDGEFLOW_NOTIFICATIONS_ALLOW_PRIVATE="true",
        EDGEFLOW_DRIFT_EVERY_S="1", EDGEFLOW_ALERTS_EVERY_S="1",
    )  # fmt: skip
    client = Client(stage.address)
    until(lambda: fetch(f"{stage.address}/api/v1/ready")["mqtt_healthy"], "the server and its hub")
    token = client.create_token(records.TokenCreate()).token
    state = stage.folder / ROBOT
    stage.run(
        "edgeflow-agent", "enroll", "--server", stage.address, "--token", token, "--target", ROBOT,
        "--state-dir", str(state), shown=f"edgeflow-agent enroll … --target {ROBOT}",
    )  # fmt: skip
    # Windows of seconds and every row looked at: a day of the device's life in a minute.
    stage.start(
        ROBOT, "edgeflow-agent", "run", "--state-dir", str(state), "--port", "0",
        EDGEFLOW_AGENT_TELEMETRY_WINDOW_S=str(WINDOW_S), EDGEFLOW_AGENT_TELEMETRY_CPU_SHARE="1",
    )  # fmt: skip
    said = state / "agent.json"
    return client, until(lambda: said.is_file() and json.loads(said.read_text())["url"], ROBOT)


def tell_me(client: Client) -> None:
    """A receiver of alerts in this very process."""
    hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{hook.server_address[1]}/"
    client.put_receiver(
        "me", records.ReceiverPut(kind="webhook", url=url, matchers=["alertname=TargetDrift"], group_wait_s=0)
    )


def train(address: str, winter: pd.DataFrame) -> None:
    """A model with its baseline, in the registry."""
    mlflow.set_tracking_uri(address)
    mlflow.set_experiment("seattle")
    with mlflow.start_run():
        mlflow.log_input(
            mlflow.data.from_pandas(winter, targets="later", name="seattle-winter"), context="training"
        )
        model = LinearRegression().fit(winter[COLUMNS].to_numpy(), winter.later)
        log_model(model, samples=winter[COLUMNS], registered_model_name="seattle")


def ask(url: str, days: pd.DataFrame, windows: int) -> None:
    """As many requests as make so many windows, in the pace of the windows."""
    rng = np.random.default_rng(1)
    for _ in range(windows):
        began = time.monotonic()
        for _ in range(ROWS // 100):
            rows = days[COLUMNS].to_numpy()[rng.integers(0, len(days), 100)]
            fetch(f"{url}/infer", rows.tolist())
        time.sleep(max(WINDOW_S - (time.monotonic() - began), 0))


def draw(report: records.DriftReport, place: Path) -> None:
    """What the model saw in training beside what it sees now."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(report.features), figsize=(3.4 * len(report.features), 3))
    for axis, found in zip(axes, report.features, strict=True):
        histogram = found.histogram
        for shares, colour, name in (
            (histogram.baseline, "#9aa7b5", "baseline"),
            (histogram.live, "#d1495b", "live"),
        ):
            if histogram.labels:
                axis.bar(histogram.labels, shares, color=colour, alpha=0.6, label=name)
            else:
                axis.stairs(shares, histogram.edges, fill=True, color=colour, alpha=0.6, label=name)
        axis.set_title(f"{found.feature}: {found.status}", fontsize=10)
        axis.set_yticks([])
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(place, metadata={"Date": None})


def main() -> None:
    """Winter, summer, and winter again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--picture", type=Path, default=Path("seattle.svg"), help="where to draw")
    picture = parser.parse_args().picture.absolute()
    data = hours()
    is_winter = data.date.dt.month <= 2
    is_seen = data.date.dt.day % 2 == 0
    winter, unseen, july = (
        data[is_winter & is_seen],
        data[is_winter & ~is_seen],
        data[data.date.dt.month == 7],
    )
    with staged(keep=False) as stage:
        client, url = start(stage)
        train(stage.address, winter)
        stage.run(
            "mlflow", "deployments", "create", "-t", "edgeflow", "--name", "seattle",
            "-m", "models:/seattle/1", "-C", f"target={ROBOT}", "-C", "wait=60",
        )  # fmt: skip
        tell_me(client)

        console.print("[bold]Winter hours that it has not seen[/]")
        ask(url, unseen, 4)
        until(lambda: client.drift(target=ROBOT, scope="target"), "the first verdicts")
        for item in client.drift(target=ROBOT, scope="target"):
            console.print(f"  {item.feature}: {item.status}")
        if Hook.told:
            raise SystemExit("an alert without a shift")

        console.print("[bold]July[/]")
        from_july = pd.Timestamp.now("UTC")
        for _ in itertools.takewhile(lambda _: not Hook.told, range(20)):
            ask(url, july, 1)
        if not Hook.told:
            raise SystemExit("July went unnoticed")
        report = client.drift_report(target=ROBOT, start=from_july.isoformat())
        for feature in report.features:
            for signal in feature.signals:
                if signal.status == "drift":
                    console.print(f"  {feature.feature}: {signal.text}")
        draw(report, picture)
        console.print(f"  baseline and July side by side: {picture}")


if __name__ == "__main__":
    main()
