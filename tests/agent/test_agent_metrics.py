"""`/metrics` as Prometheus itself reads it."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeflow_agent.config import AgentConfig
from edgeflow_agent.runtime.standalone import Standalone
from tests.agent.conftest import linear, request


def test_prometheus_reads_what_is_said(tmp_path: Path) -> None:
    model = tmp_path / 'odd "name"\\.onnx'
    model.write_bytes(linear())
    service = Standalone(AgentConfig(port=0, state_dir=tmp_path / "state"), str(model))
    service.start()
    try:
        for body in ([1, 1, 1, 1], [1, 1, 1, 1], "odd"):
            request(f"{service.url}/infer", body)
        with urllib.request.urlopen(f"{service.url}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            families = {item.name: item for item in text_string_to_metric_families(answer.read().decode())}
    finally:
        service.stop()
    requests = {item.labels["status"]: item.value for item in families["edgeflow_inference_requests"].samples}
    assert (requests["ok"], requests["bad_input"], requests["error"]) == (2, 1, 0)
    (info,) = families["edgeflow_model_info"].samples
    assert info.labels["model"] == 'odd "name"\\'
    duration = families["edgeflow_inference_duration_seconds"]
    assert duration.type == "histogram"
    buckets = [item.value for item in duration.samples if item.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3
    for name in (
        "edgeflow_inference_requests_active",
        "edgeflow_inference_memory_rss_bytes",
        "edgeflow_inference_cpu_usage_ratio",
        "edgeflow_model_load_duration_seconds",
    ):
        (sample,) = families[name].samples
        assert sample.value >= 0
        assert families[name].documentation
    resident = families["edgeflow_inference_memory_rss_bytes"].samples[0].value
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
