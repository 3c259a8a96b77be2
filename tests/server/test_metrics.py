"""What Prometheus reads of the server: its own parser reads it, counts only grow, and labels are bounded."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import exposition
from edgeflow_mlflow.domain.exposition import Metric
from edgeflow_mlflow.services import counters, metrics
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_bundle
from tests.server.test_alerting import seen, window

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(page: list[Metric]) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(exposition.render(page)):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(max_size=20), max_size=3),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_prometheus_reads_what_is_written(labels: dict[str, str], value: float) -> None:
    # Its parser cuts lines as Python does, at more signs than the format knows.
    labels = {name: "".join(text.splitlines()) + '\n\\"' for name, text in labels.items()}
    metric = Metric(name="edgeflow_x", kind="gauge", text="a\\b\nc", samples=[(labels, value)])
    ((key, found),) = read([metric]).items()
    assert key == ("edgeflow_x", tuple(sorted(labels.items())))
    assert found == value or (math.isnan(found) and math.isnan(value))


def test_an_empty_server(state: State) -> None:
    found = read(metrics.fleet_wide(state))
    assert found["edgeflow_hub_up", ()] == 0
    assert found["edgeflow_alerts_firing", (("severity", "critical"),)] == 0
    assert found["edgeflow_devices", (("fleet", ""), ("state", "online"))] == 0
    assert found["edgeflow_webhook_deliveries_total", (("outcome", "sent"),)] == 0


def test_a_fleet_in_figures(state: State, clock: Clock) -> None:
    seen(state, "r1", "r2", "r3")
    clock.pass_by(seconds=100)
    seen(state, "r1", "r2")
    bundle = add_bundle(state)
    with state.database.write() as session:
        session.add(
            models.Fleet(name="lyon", selector="", targets=["r1", "r3"], created_at=clock.now, created_by="a")
        )
        drift: dict[str, Any] = {"scope": "target", "digest": "d", "baseline_sha256": "b", "kind": "input"}
        drift |= {"model_name": "iris", "model_version": "1", "from_at": clock.now, "to_at": clock.now}
        for number, (status, alarm) in enumerate((("ok", False), ("drift", False), ("drift", True))):
            session.add(
                models.Drift(
                    **drift,
                    scope_id="r1",
                    feature=f"f{number}",
                    status=status,
                    alarm=alarm,
                    updated_at=clock.now,
                )
            )
    found = read(metrics.fleet_wide(state))
    devices = {
        (dict(labels)["fleet"], dict(labels)["state"]): value
        for (name, labels), value in found.items()
        if name == "edgeflow_devices" and value
    }
    assert devices == {("lyon", "online"): 1, ("lyon", "offline"): 1, ("", "online"): 1}
    series = ("model", "iris"), ("status", "alarm"), ("version", "1")
    assert found["edgeflow_drift_features", series] == 1
    assert bundle.digest not in exposition.render(metrics.fleet_wide(state))
    each = read(metrics.of_devices(state))
    assert each["edgeflow_device_up", (("target", "r3"),)] == 0
    assert each["edgeflow_device_last_seen_timestamp_seconds", (("target", "r1"),)] == clock.now.timestamp()


def test_windows_are_counted_once_and_stay_counted(state: State, clock: Clock) -> None:
    window(state, "r1", requests=10, failed=1)
    window(state, "r2", requests=5, end_at=clock.now - timedelta(seconds=7))
    counters.count_windows(state)
    assert ("edgeflow_inference_requests_total", ()) not in read(metrics.fleet_wide(state))
    found = read(metrics.fleet_wide(state))
    assert found["edgeflow_telemetry_windows_total", ()] == 0, (
        "another may still be committed for this moment"
    )
    assert found["edgeflow_telemetry_lag_seconds", ()] == 7
    clock.pass_by(seconds=31)
    window(state, "r1", requests=100)
    for _ in range(3):
        counters.count_windows(state)
    found = read(metrics.fleet_wide(state))
    version = (("model", "iris"), ("version", "1"))
    assert found["edgeflow_telemetry_windows_total", ()] == 2
    assert found["edgeflow_inference_requests_total", version] == 15
    assert found["edgeflow_inference_failed_requests_total", version] == 1
    clock.pass_by(hours=5)
    for _ in range(6):
        counters.count_windows(state)
    with state.database.write() as session:
        session.query(models.Window).delete()
    counters.count_windows(state)
    found = read(metrics.fleet_wide(state))
    assert found["edgeflow_inference_requests_total", version] == 115
    assert ("edgeflow_telemetry_lag_seconds", ()) not in found
