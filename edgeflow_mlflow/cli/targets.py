"""`edgeflow targets`: which devices there are, and what each serves."""

from __future__ import annotations

import click

from edgeflow_mlflow.cli import options, show
from edgeflow_mlflow.cli.deployments import show_executions


@click.group()
def targets() -> None:
    """Devices."""


@targets.command("list")
@options.server
@options.as_json
@click.option("--selector", default="", help="Labels, as site=lyon,arm!=left.")
def listing(server: str | None, json: bool, selector: str) -> None:
    """Every device with what it serves."""
    found = show.client(server).targets(selector=selector)
    if json:
        show.as_json(found)
        return
    show.table(
        ("TARGET", "STATUS", "SEEN", "DEPLOYMENT", "SERVES", "IN SYNC", "STATE", "LABELS"),
        [
            (
                item.id,
                item.status,
                show.ago(item.last_seen_at),
                item.deployment,
                f"{item.actual.model}/{item.actual.version}" if item.actual.serving else "nothing",
                "yes" if item.in_sync else "NO",
                item.execution.state if item.execution else "",
                options.joined(item.labels),
            )
            for item in found
        ],
        empty="No targets. Let one in: edgeflow tokens create",
    )


@targets.command("show")
@options.server
@options.as_json
@click.argument("target")
def one(server: str | None, json: bool, target: str) -> None:
    """One device."""
    found = show.client(server).target(target)
    if json:
        show.as_json(found)
        return
    actual = found.actual
    rows = [
        ("target", found.id),
        ("status", f"{found.status}, seen {show.ago(found.last_seen_at)}"),
        ("labels", options.joined(found.labels)),
        ("deployment", found.deployment or "none"),
        *([("held", f"by {found.held_by}: {found.hold_reason}".rstrip(": "))] if found.held_at else []),
        ("serves", f"{actual.model}/{actual.version}" if actual.serving else "nothing"),
        ("run", actual.run_id or "unknown"),
        ("digest", actual.digest),
        ("in sync", "yes" if found.in_sync else "no"),
        ("answers at", actual.infer_url),
        ("agent", f"{actual.agent_version} on {actual.platform}, onnxruntime {actual.onnxruntime_version}"),
    ]
    if found.execution is not None:
        told = " ".join(word for word in (found.execution.reason, found.execution.message) if word)
        rows.append(("last change", f"{found.execution.action}: {found.execution.state} {told}".strip()))
    show.table(("", ""), rows, empty="")


@targets.command()
@options.server
@click.argument("target")
def diagnose(server: str | None, target: str) -> None:
    """Ask a device over MQTT how it is: health, disk, load, reports that wait. As JSON."""
    show.as_json(show.client(server).diagnose(target).answer)


@targets.command()
@options.server
@options.as_json
@click.argument("target")
def captures(server: str | None, json: bool, target: str) -> None:
    """Requests that a device has kept whole, as its deployment asked with -C capture_rate."""
    found = show.client(server).captures(target)
    if json:
        show.as_json(found)
        return
    rows = [(item.id, item.at, str(item.size)) for item in found]
    show.table(
        ("capture", "at", "bytes"),
        rows,
        empty=f"{target} has kept no request; a deployment asks for some with -C capture_rate=0.01",
    )


@targets.command()
@options.server
@click.option("--inputs", is_flag=True, help="Only what was asked, as POST /infer takes it.")
@click.argument("target")
@click.argument("capture_id")
def capture(server: str | None, inputs: bool, target: str, capture_id: str) -> None:
    """Fetch a request that a device has kept, with its answer. As JSON."""
    found = show.client(server).capture(target, capture_id)
    show.as_json({"inputs": found.inputs} if inputs else found)


@targets.command()
@options.server
@click.argument("target")
@click.argument("labels", nargs=-1, required=True)
def label(server: str | None, target: str, labels: tuple[str, ...]) -> None:
    """Give a device new labels, in place of the old: key=value …"""
    changed = show.client(server).label(target, options.pairs(labels))
    click.echo(f"{changed.id}: {options.joined(changed.labels)}")


@targets.command()
@options.server
@click.argument("target")
@options.why
def hold(server: str | None, target: str, why: str) -> None:
    """Leave a device out of rollouts, until it is released."""
    show.client(server).hold(target, why)
    click.echo(f"{target} keeps what it has; let it take part again with: edgeflow targets release {target}")


@targets.command()
@options.server
@click.argument("target")
@options.why
def release(server: str | None, target: str, why: str) -> None:
    """Let a held device take part again: it gets what it has missed."""
    show.client(server).release(target, why)
    click.echo(f"{target} takes part in rollouts again")


@targets.command()
@options.server
@options.as_json
@click.argument("target")
def explain(server: str | None, json: bool, target: str) -> None:
    """Why a device has the model that it has."""
    found = show.client(server).explain(target)
    if json:
        show.as_json(found)
        return
    for sentence in found.because:
        click.echo(f"- {sentence}")
    click.echo()
    show.decisions(found.decisions)


@targets.command()
@options.server
@click.argument("target")
def revoke(server: str | None, target: str) -> None:
    """Shut a device out: its credential is worthless from now on."""
    show.client(server).revoke(target)
    click.echo(f"revoked {target}; let it in again with: edgeflow tokens create --target {target}")


@targets.command()
@options.server
@click.argument("target")
def delete(server: str | None, target: str) -> None:
    """Forget a device that no deployment holds."""
    show.client(server).delete_target(target)
    click.echo(f"deleted {target}")


@targets.command()
@options.server
@options.as_json
@click.argument("target")
@click.argument("execution_id", required=False)
def executions(server: str | None, json: bool, target: str, execution_id: str | None) -> None:
    """What a device was told to do, the newest first; or every report on one of them."""
    client = show.client(server)
    if execution_id is None:
        found = client.executions(target)
        if json:
            show.as_json(found)
        else:
            show_executions(found)
        return
    detail = client.execution(execution_id)
    if json:
        show.as_json(detail)
        return
    show.table(
        ("HEARD", "STATE", "REASON", "MESSAGE", "DECISION"),
        [
            (f"{item.received_at:%Y-%m-%d %H:%M:%S}", item.state, item.reason, item.message, item.decision)
            for item in detail.reports
        ],
        empty="The device has said nothing of it.",
    )
