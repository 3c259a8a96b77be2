"""`edgeflow deploy`: a model to devices, or the next version to those that have one, with its progress."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from edgeflow_agent import typed
from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, rollouts, show
from edgeflow_mlflow.client import ApiError, Client


@click.command()
@options.server
@click.option(
    "-C", "config", multiple=True, help="key=value, as of `mlflow deployments`: -C waves=1,10%,100%."
)
@click.option("--target", "targets", multiple=True, help="A device; may be given several times.")
@click.option("--fleet", default="", help="Every device of a fleet.")
@click.option("--selector", default="", help="Every device whose labels match: site=lyon,arm!=left.")
@click.option("--follow/--no-follow", default=True, help="Show the rollout until it has ended.")
@click.option("--plan", is_flag=True, help="Only show who would get it in which wave.")
@click.argument("name")
@click.argument("model_uri")
@click.pass_context
def deploy(
    context: click.Context,
    server: str | None,
    config: tuple[str, ...],
    targets: tuple[str, ...],
    fleet: str,
    selector: str,
    follow: bool,
    plan: bool,
    name: str,
    model_uri: str,
) -> None:
    """Deploy MODEL_URI (models:/iris/3, models:/iris@champion) as NAME, or move NAME to it.

    Where is said once; the next version goes to the same devices. Exit codes as of `edgeflow rollouts watch`.
    """
    from edgeflow_mlflow.plugin import deploy_keys

    client = show.client(server)
    exists = _exists(client, name)
    keys = deploy_keys.read(options.pairs(config), "update" if exists else "create")
    where = {**keys["where"], **({"targets": list(targets)} if targets else {})}
    where |= {key: value for key, value in (("fleet", fleet), ("selector", selector)) if value}
    if plan:
        _preview(client, where, keys["rollout"], name, exists=exists)
        return
    parts = {group: keys[group] for group in ("trial", "runtime", "monitor", "rollout") if keys[group]}
    body: dict[str, Any] = {"model_uri": model_uri, **parts, **keys["request"]}
    if where:
        body["where"] = where
    if exists:
        client.change_deployment(name, _read(records.DeploymentChange, body))
    else:
        if not where:
            raise click.UsageError(f"{name} is new: say where, with --target, --fleet or --selector")
        client.create_deployment(_read(records.DeploymentCreate, {"name": name, **body}))
    if follow:
        context.exit(rollouts.follow(client, name, timeout_s=None, as_json=False))
    else:
        click.echo(f"{name} goes to {model_uri}; follow it with: edgeflow rollouts watch {name}")


def _exists(client: Client, name: str) -> bool:
    try:
        client.deployment(name)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def _preview(
    client: Client, where: dict[str, Any], rollout: dict[str, Any], name: str, *, exists: bool
) -> None:
    if not where and exists:
        where = {"targets": client.deployment(name).deployment.targets}
    body = {"where": where, "waves": rollout.get("waves", [])}
    found = client.preview_rollout(_read(records.PreviewRequest, body))
    show.table(
        ("WAVE", "TARGETS", "ONLINE", "SOME OF THEM"),
        [(wave.number, wave.targets, wave.online, ", ".join(wave.some)) for wave in found.waves],
        empty="Nobody would get it.",
    )
    click.echo(f"{found.targets} targets, {found.online} of them online, {found.held} held back.")
    for other, count in found.elsewhere.items():
        click.echo(f"{count} belong to deployment {other}: take them over with -C replace=true")


def _read(kind: Any, value: dict[str, Any]) -> Any:
    try:
        return typed.convert(kind, value)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from error
