"""What the deployments plugin makes of what it is given, before anything goes over the network."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from edgeflow_mlflow.plugin import deploy_keys, deployments
from edgeflow_mlflow.plugin.deployments import EdgeflowDeploymentClient


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("[[5.1, 3], [4.9, 2]]", [[5.1, 3], [4.9, 2]]),
        ('[[1, "a", true]]', [[1, "a", True]]),
        ("[[1.5, null]]", [[1.5, None]]),
        ("[[[1, 2], [3, 4]]]", [[[1, 2], [3, 4]]]),
        ('[{"a": 1, "b": 2.5}]', [{"a": 1, "b": 2.5}]),
    ],
)
def test_what_the_command_line_reads_is_sent_as_it_was_written(written: str, sent: Any) -> None:
    read = pd.read_json(io.StringIO(written))  # as `mlflow deployments predict -I` does
    assert json.loads(msgspec.json.encode(deployments._plain(read))) == sent


def test_frames_arrays_and_series() -> None:
    named = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    assert deployments._plain(named) == [{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}]
    assert deployments._plain(pd.DataFrame(np.ones((1, 2)))) == [[1.0, 1.0]]
    assert deployments._plain(pd.DataFrame({1: [2], 0: [3]})) == [{1: 2, 0: 3}], "somebody's own names"
    assert deployments._plain(pd.Series([1, 2])) == [1, 2]
    assert deployments._plain({"x": np.ones((1, 2))}) == {"x": [[1.0, 1.0]]}


def test_an_update_sends_only_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    client = EdgeflowDeploymentClient("edgeflow:http://127.0.0.1:1")
    sent: list[dict[str, Any]] = []

    def change(name: str, body: msgspec.Struct) -> Any:
        sent.append(json.loads(msgspec.json.encode(body)))
        return msgspec.defstruct("View", [("name", str)])(name)

    monkeypatch.setattr(client._client, "change_deployment", change)
    client.update_deployment("iris", config={"trial_seconds": "5", "threads": "2"})
    assert (sent[0]["trial"], sent[0]["runtime"]) == ({"duration_s": 5.0}, {"threads": 2})
    client.update_deployment("iris", "models:/iris/2")
    assert not sent[1]["trial"]
    assert not sent[1]["runtime"]


@pytest.mark.parametrize("verb", ["create", "update"])
def test_no_key_is_left_behind(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "providers": "cpu", "retries": "transfer:1", "start_at": "2026-12-01T00:00:00Z", "waves": "1,100%",
        "on_failure": "pause", "window": "0 2 * * *", "window_zone": "UTC", "drift_gate": "both",
        "reason": "why", "max_memory_mb": "64",
    }  # fmt: skip
    client = EdgeflowDeploymentClient("edgeflow:http://127.0.0.1:1")
    sent: list[dict[str, Any]] = []

    def take(*given: Any) -> Any:
        sent.append(json.loads(msgspec.json.encode(given[-1])))
        return msgspec.defstruct("View", [("name", str)])("iris")

    monkeypatch.setattr(client._client, "create_deployment", take)
    monkeypatch.setattr(client._client, "change_deployment", take)
    monkeypatch.setattr(client, "_finish", lambda *_: {})
    known = [key for key in deploy_keys.KEYS if key.name in deploy_keys.ALLOWED[verb]]
    for key in (item for item in known if item.group not in ("client", "where")):
        text = texts.get(key.name) or ("true" if key.wants == "true or false" else "1")
        if verb == "create":
            client.create_deployment("iris", "models:/iris/1", config={key.name: text})
        else:
            client.update_deployment("iris", config={key.name: text})
        body = sent.pop()
        found = body if key.group == "request" else body[key.group]
        assert key.field in found, f"-C {key.name} goes nowhere"
