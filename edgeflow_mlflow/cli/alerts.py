"""`edgeflow alerts`: what is wrong, who is told, and what to be quiet about."""

from __future__ import annotations

import click

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import alert_setup, options, show
from edgeflow_mlflow.cli.tokens import seconds


@click.group()
def alerts() -> None:
    """Alerts, their rules, and who is told of them."""


@alerts.command("list")
@options.server
@options.as_json
@click.option("--phase", type=click.Choice(["pending", "firing", "resolved", "all"]), default=None)
@click.option("--severity", type=click.Choice(["info", "warning", "critical"]), default=None)
@click.option("--rule", default="", help="Of one rule.")
@click.option("--target", default="", help="About one device.")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True)
def listing(
    server: str | None,
    json: bool,
    phase: str | None,
    severity: str | None,
    rule: str,
    target: str,
    limit: int,
) -> None:
    """Alerts that are pending or fire, the newest first."""
    query = {"phase": phase or "", "severity": severity or "", "rule": rule, "target": target}
    given = {key: value for key, value in query.items() if value}
    found = show.client(server).newest_alerts(limit, **given)
    if json:
        show.as_json(found)
        return
    show.table(
        ("ID", "SEVERITY", "RULE", "PHASE", "SINCE", "WHAT", "NOTE"),
        [
            (
                item.id,
                item.severity,
                item.rule,
                item.phase,
                show.ago(item.resolved_at or item.fired_at or item.active_at),
                item.annotations.get("summary") or options.joined(item.labels),
                _note(item),
            )
            for item in found
        ],
        empty="No alerts.",
    )


def _note(item: records.AlertView) -> str:
    notes = []
    if item.acknowledged_at is not None:
        notes.append(f"seen by {item.acknowledged_by}")
    if item.silenced_by:
        notes.append("silenced")
    if item.inhibited:
        notes.append("another alert speaks for it")
    return ", ".join(notes)


@alerts.command()
@options.server
@click.argument("alert_id", type=int)
@options.why
def ack(server: str | None, alert_id: int, why: str) -> None:
    """Say that you look after an alert: nobody is reminded of it again."""
    found = show.client(server).acknowledge(alert_id, why)
    click.echo(f"{found.rule} {found.target} is yours".replace("  ", " "))


@alerts.command()
@options.server
@options.as_json
@click.argument("matchers", nargs=-1, required=True)
@click.option("--for", "duration", required=True, help="How long: 90s, 15m, 24h, 7d.")
@click.option("--comment", default="", help="Why.")
def silence(server: str | None, json: bool, matchers: tuple[str, ...], duration: str, comment: str) -> None:
    """Tell nobody of the alerts that match all of these: target=robot-07 'alertname=~Drift.*' …"""
    body = records.SilenceCreate(matchers=list(matchers), duration_s=seconds(duration), comment=comment)
    found = show.client(server).silence(body)
    if json:
        show.as_json(found)
        return
    click.echo(
        f"quiet until {found.ends_at:%Y-%m-%d %H:%M} UTC; end it with: edgeflow alerts expire {found.id}"
    )


@alerts.command()
@options.server
@options.as_json
@click.option("--expired", is_flag=True, help="With those that have ended.")
def silences(server: str | None, json: bool, expired: bool) -> None:
    """What nobody is told of."""
    found = show.client(server).silences(expired=expired)
    if json:
        show.as_json(found)
        return
    show.table(
        ("ID", "STATE", "MATCHERS", "UNTIL", "BY", "COMMENT"),
        [
            (
                item.id,
                item.state,
                " ".join(item.matchers),
                f"{item.ends_at:%Y-%m-%d %H:%M}",
                item.created_by,
                item.comment,
            )
            for item in found
        ],
        empty="No silences.",
    )


@alerts.command()
@options.server
@click.argument("silence_id")
def expire(server: str | None, silence_id: str) -> None:
    """End a silence now."""
    show.client(server).expire_silence(silence_id)
    click.echo(f"ended {silence_id}")


@alerts.command()
@options.server
@options.as_json
def rules(server: str | None, json: bool) -> None:
    """All rules, and how many alerts of each there are."""
    found = show.client(server).alert_rules()
    if json:
        show.as_json(found)
        return
    show.table(
        ("RULE", "KIND", "ON", "SEVERITY", "FOR", "PARAMETERS", "ABOUT", "FIRING", "ORIGIN"),
        [
            (
                item.name,
                item.kind,
                "yes" if item.enabled else "no",
                item.severity,
                f"{item.for_s:g} s",
                ",".join(
                    f"{key}={value}" for key, value in item.parameters.items() if value not in (None, "")
                ),
                " ".join(word for word in (item.selector, item.model, item.deployment) if word)
                or "everything",
                item.firing or "",
                item.origin,
            )
            for item in found
        ],
        empty="No rules.",
    )


@alerts.command()
@options.server
@options.as_json
def receivers(server: str | None, json: bool) -> None:
    """Who is told, of what, and whether that works."""
    found = show.client(server).receivers()
    if json:
        show.as_json(found)
        return
    show.table(
        ("RECEIVER", "KIND", "ADDRESS", "OF", "WAITING", "ERROR"),
        [
            (
                item.name,
                item.kind,
                item.address,
                (" ".join(item.matchers) or "everything") + (", by default" if item.default else ""),
                item.waiting or "",
                item.last_error,
            )
            for item in found
        ],
        empty="Nobody is told. Make a receiver: PUT /api/v1/receivers/<name>",
    )


@alerts.command()
@options.server
@options.as_json
@click.argument("receiver")
@click.pass_context
def test(context: click.Context, server: str | None, json: bool, receiver: str) -> None:
    """Send a receiver a test notification, and say what came back. Exit code 1: it did not arrive."""
    found = show.client(server).test_receiver(receiver)
    if json:
        show.as_json(found)
    else:
        word = "delivered" if found.delivered else "NOT delivered"
        click.echo(" ".join(part for part in (word, str(found.status or ""), found.text) if part))
    context.exit(0 if found.delivered else 1)


alerts.add_command(alert_setup.rule)
alerts.add_command(alert_setup.receiver)
