"""`edgeflow deployments`: what `mlflow deployments` shows as one long line, as tables."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show


@click.group()
def deployments() -> None:
    """Deployments. Make and move them with `edgeflow deploy`, or `mlflow deployments … -t edgeflow`."""


@deployments.command("list")
@options.server
@options.as_json
def listing(server: str | None, json: bool) -> None:
    """Every deployment."""
    found = show.client(server).deployments()
    if json:
        show.as_json(found)
        return
    show.table(
        ("NAME", "STATUS", "MODEL", "TARGETS", "ROLLOUT", "UPDATED", "BY"),
        [
            (
                item.name,
                item.status,
                f"{item.rollout.model.name}/{item.rollout.model.version}",
                item.fleet
                or item.selector
                or ",".join(item.targets[:4]) + (",…" if len(item.targets) > 4 else ""),
                item.rollout.number,
                show.ago(item.updated_at),
                item.rollout.created_by,
            )
            for item in found
        ],
        empty="No deployments. Make one: mlflow deployments create -t edgeflow --name … -m … -C target=…",
    )


@deployments.command("show")
@options.server
@options.as_json
@click.argument("name")
def one(server: str | None, json: bool, name: str) -> None:
    """One deployment: each device, and where the model comes from."""
    detail = show.client(server).deployment(name)
    if json:
        show.as_json(detail)
        return
    item = detail.deployment
    run = detail.lineage.get("run") or {}
    sets = [f"{found['name']} ({found['digest']})" for found in detail.lineage.get("datasets", ())]
    show.table(
        ("", ""),
        [
            ("deployment", f"{item.name}: {item.status}"),
            ("model", f"{item.rollout.model.name}/{item.rollout.model.version} from {item.model_uri}"),
            ("run", f"{run.get('name', '')} {run.get('id', 'unknown')}".strip()),
            ("data sets", ", ".join(sets) or "none logged"),
        ],
        empty="",
    )
    click.echo()
    show_executions(detail.executions)


@deployments.command()
@options.server
@options.as_json
@click.argument("name")
def history(server: str | None, json: bool, name: str) -> None:
    """Every rollout of a deployment, newest first."""
    found = show.client(server).history(name)
    if json:
        show.as_json(found)
        return
    show.table(
        ("ROLLOUT", "MODEL", "STATUS", "WHEN", "BY", "WHY"),
        [
            (
                item.number,
                f"{item.model.name}/{item.model.version}",
                item.status,
                f"{item.created_at:%Y-%m-%d %H:%M}",
                item.created_by,
                item.reason,
            )
            for item in found.rollouts
        ],
        empty="",
    )
    click.echo()
    show_executions(found.executions)


def show_executions(found: Sequence[records.ExecutionView]) -> None:
    """How each device stands."""
    show.table(
        ("TARGET", "ROLLOUT", "ACTION", "STATE", "REASON", "MESSAGE", "CHANGED"),
        [
            (
                item.target,
                item.rollout,
                item.action,
                item.state,
                item.reason,
                item.message,
                show.ago(item.updated_at),
            )
            for item in found
        ],
        empty="No executions.",
    )


@deployments.command()
@options.server
@click.option("--keep-serving", is_flag=True, help="Devices keep what they have, and are free for another.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("name")
def delete(server: str | None, keep_serving: bool, yes: bool, name: str) -> None:
    """End a deployment: its devices stop serving."""
    client = show.client(server)
    if not yes:
        count = len(client.deployment(name).deployment.targets)
        what = "are let go" if keep_serving else "stop serving"
        click.confirm(f"{count} devices {what}. Delete {name}?", abort=True)
    client.delete_deployment(name, keep_serving=keep_serving)
    click.echo(f"{name} is deleted.")


@deployments.command()
@options.server
@click.option("--target", default="", help="Which device. Default: any that is there.")
@click.option("--timeout", "timeout_s", default=10.0, show_default=True, help="Seconds to wait for it.")
@click.argument("name")
@click.argument("inputs")
def predict(server: str | None, target: str, timeout_s: float, name: str, inputs: str) -> None:
    """Ask a device of a deployment over MQTT: INPUTS is JSON, as `POST /infer` takes it."""
    try:
        value = msgspec.json.decode(inputs)
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"that is no JSON: {error}", param_hint="INPUTS") from error
    body = records.PredictRequest(inputs=value, target=target, timeout_s=timeout_s)
    show.as_json(show.client(server).predict(name, body))
