"""The page about alerts, and the examples for Prometheus and Grafana, say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import promql_parser
import pytest
import yaml

from edgeflow_mlflow.domain.alert_kinds import KINDS
from edgeflow_mlflow.domain.alert_rules import STARTER
from edgeflow_mlflow.domain.alerts import Phase
from edgeflow_mlflow.services import receivers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples" / "observability"
SOURCE = (ROOT / "edgeflow_mlflow" / "services" / "metrics.py").read_text(encoding="utf-8")
METRICS = set(re.findall(r'"(edgeflow_[a-z_]+)"', SOURCE))


def rows(first: str) -> list[list[str]]:
    """The rows of the table whose heading begins with a word."""
    found = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found, first
    return [[cell.strip() for cell in line.strip("| ").split(" |")] for line in found[1].splitlines()]


def test_every_kind_and_its_defaults() -> None:
    found = {row[0].strip("`"): row[-1] if len(row) > 2 else "" for row in rows("kind")}
    assert set(found) == set(KINDS)
    for name, kind in KINDS.items():
        for field in msgspec.structs.fields(kind.parameters):
            words = re.search(rf"`{field.name}`( [^,`]+)?", found[name])
            assert words, f"{name} has {field.name}"
            if field.default not in (None, "", msgspec.NODEFAULT):
                said = (words[1] or "").strip().partition(" ")[0]
                usual = field.default
                assert said == (f"{usual:g}" if isinstance(usual, int | float) else usual), (name, field.name)


def test_every_starter_rule() -> None:
    found = {row[0].strip("`"): (row[1].strip("`"), row[2], float(row[3])) for row in rows("starter rule")}
    assert found == {
        item.name: (item.kind, item.severity.value, item.hold.total_seconds()) for item in STARTER
    }
    advised = {word for row in rows("alert") for word in re.findall(r"`(\w+)`", row[0])}
    assert advised == set(found)


def test_every_phase_and_every_kind_of_receiver() -> None:
    assert [row[0].strip("`") for row in rows("state")] == [item.value for item in Phase]
    part = PAGE.partition("## Receivers")[2]
    assert set(re.findall(r"^\| `(\w+)` \| ", part, re.MULTILINE)) == set(receivers.KINDS)


def test_the_signature_check_of_the_page_accepts_ours(monkeypatch: Any) -> None:
    from edgeflow_mlflow.services import posting

    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    known: dict[str, Any] = {}
    exec(code[1], known)
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    headers = posting.headers("s3cret", "d1", "1000000", b"{}")
    assert known["is_ours"]("s3cret", headers, b"{}")
    assert not known["is_ours"]("other", headers, b"{}")
    assert not known["is_ours"]("s3cret", headers, b"{ }")
    assert not known["is_ours"]("s3cret", posting.headers("s3cret", "d1", "999000", b"{}"), b"{}")


def used(text: str) -> set[str]:
    return set(re.findall(r"\bedgeflow_[a-z_]+\b", text))


def expressions() -> list[str]:
    """All that Prometheus is asked in the examples."""
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8"))
    document = yaml.safe_load((EXAMPLES / "edgeflow-rules.yml").read_text(encoding="utf-8"))
    return [
        *(target["expr"] for panel in board["panels"] for target in panel["targets"]),
        *(rule["expr"] for group in document["groups"] for rule in group["rules"]),
    ]


def test_prometheus_can_read_every_expression() -> None:
    found = expressions()
    assert len(found) > 15
    for expression in found:
        promql_parser.parse(expression)
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse(found[-1] + ")")


def test_the_dashboard_uses_metrics_that_exist() -> None:
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({item["id"] for item in panels}) == len(panels)
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert used(" ".join(expressions)) <= METRICS
    assert {name for name in METRICS if "device_" not in name} <= used(" ".join(expressions))
    places = {(x, y) for item in panels for x, y in [(item["gridPos"]["x"], item["gridPos"]["y"])]}
    assert len(places) == len(panels)


def test_the_rules_use_metrics_that_exist() -> None:
    scrape = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text(encoding="utf-8"))
    assert scrape["scrape_configs"][0]["metrics_path"] == "/api/v1/metrics"
    assert all((EXAMPLES / name).is_file() for name in scrape["rule_files"])
    document = yaml.safe_load((EXAMPLES / "edgeflow-rules.yml").read_text(encoding="utf-8"))
    for group in document["groups"]:
        for rule in group["rules"]:
            assert used(rule["expr"]) <= METRICS
            if "alert" in rule:
                assert rule["labels"]["severity"] in ("info", "warning", "critical")
                assert rule["annotations"]["summary"]
            else:
                assert re.fullmatch(r"[a-z_]+(:[a-z0-9_]+)+", rule["record"])


def test_every_metric_is_documented() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert {name for name in METRICS if f"`{name}`" not in page} == set()
