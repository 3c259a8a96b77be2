"""`edgeflow drift` and `edgeflow telemetry`: what devices see, and how far it is from training."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@click.command()
@options.server
@options.as_json
@click.option("--target", default="", help="Of one device.")
@click.option("--fleet", default="", help="Of a fleet's devices together.")
@click.option("--model", default="", help="Of a model.")
@click.option("--version", default="", help="Of one version of it.")
@click.option("--all", "everything", is_flag=True, help="Not only what has drifted.")
def drift(
    server: str | None, json: bool, target: str, fleet: str, model: str, version: str, everything: bool
) -> None:
    """Features that have drifted, alarms first."""
    found = show.client(server).drift(
        target=target, fleet=fleet, model=model, version=version, status="" if everything else "drift"
    )
    if json:
        show.as_json(found)
        return
    show.table(
        ("SCOPE", "OF", "MODEL", "FEATURE", "KIND", "STATUS", "ALARM", "VALUES", "SEEN", "WHAT"),
        [
            (
                item.scope,
                item.name,
                f"{item.model}/{item.version}",
                item.feature,
                item.kind,
                item.status.replace("_", " "),
                "ALARM" if item.alarm else "",
                item.n,
                show.ago(item.updated_at),
                _told(item),
            )
            for item in found
        ],
        empty="No verdicts yet." if everything else "Nothing has drifted; --all shows every verdict.",
    )


def _told(item: records.DriftView) -> str:
    """The first signal that says why it stands as it does."""
    return next((signal.text for signal in item.signals if signal.status == item.status), "")


@click.command()
@options.server
@options.as_json
@click.option("--target", default="", help="Of one device.")
@click.option("--fleet", default="", help="Of a fleet's devices.")
@click.option("--deployment", default="", help="Of a deployment's devices.")
@click.option("--model", default="", help="Of all devices with a model.")
@click.option("--version", default="", help="Of one version of it.")
@click.option("--last", default="1h", show_default=True, help="How far back: 90m, 24h, 7d.")
@click.option("--step", type=int, default=0, help="Seconds of one line. Default: as fits.")
def telemetry(
    server: str | None,
    json: bool,
    target: str,
    fleet: str,
    deployment: str,
    model: str,
    version: str,
    last: str,
    step: int,
) -> None:
    """Requests, errors and latencies over time."""
    begin = datetime.now(UTC) - _span(last)
    found = show.client(server).telemetry(
        target=target,
        fleet=fleet,
        deployment=deployment,
        model=model,
        version=version,
        start=f"{begin:%Y-%m-%dT%H:%M:%SZ}",
        step=str(step) if step else "",
    )
    if json:
        show.as_json(found)
        return
    show.table(
        ("FROM", "DEVICES", "REQUESTS", "PER S", "ERRORS", "P50 MS", "P95 MS", "P99 MS", "LOOKED AT", "LOST"),
        [
            (
                f"{item.at:%Y-%m-%d %H:%M}",
                item.targets,
                item.requests,
                f"{item.throughput:.2f}",
                "" if item.error_rate is None else f"{item.error_rate:.2%}",
                *(
                    "" if value is None else f"{value * 1000:.3g}"
                    for value in (item.latency_p50_s, item.latency_p95_s, item.latency_p99_s)
                ),
                item.observed,
                item.dropped,
            )
            for item in found.points
        ],
        empty="No windows of telemetry in that time.",
    )


@click.command("drift-report")
@options.server
@click.option("--target", default="", help="Of one device.")
@click.option("--fleet", default="", help="Of a fleet's devices together.")
@click.option("--model", default="", help="Of a model.")
@click.option("--version", default="", help="Of one version of it.")
@click.option("--last", default="24h", show_default=True, help="How far back: 90m, 24h, 7d.")
def drift_report(server: str | None, target: str, fleet: str, model: str, version: str, last: str) -> None:
    """Every statistic of every feature with its histograms, as JSON."""
    begin = datetime.now(UTC) - _span(last)
    found = show.client(server).drift_report(
        target=target, fleet=fleet, model=model, version=version, start=f"{begin:%Y-%m-%dT%H:%M:%SZ}"
    )
    show.as_json(found)


@click.command("refused-telemetry")
@options.server
@options.as_json
@click.option("--target", default="", help="Of one device.")
def refused_telemetry(server: str | None, json: bool, target: str) -> None:
    """What devices have sent that was refused, and why."""
    found = show.client(server).refused_telemetry(target)
    if json:
        show.as_json(found)
        return
    show.table(
        ("TARGET", "REASON", "TIMES", "LAST"),
        [(item.target, item.reason, item.count, show.ago(item.last_at)) for item in found],
        empty="Nothing was refused.",
    )


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{text!r} is no time: write 90m, 24h or 7d", param_hint="--last")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
