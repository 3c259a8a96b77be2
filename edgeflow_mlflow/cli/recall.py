"""`edgeflow recall`: a data set is bad; find its devices, take its models back, prove it."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflow_mlflow.api import records
from edgeflow_mlflow.cli import options, show
from edgeflow_mlflow.cli.lineage import chosen, dataset_options

# Exit codes for scripts: everything is corrected, or something is not yet.
_NOT_DONE = 3
_go_to = click.option(
    "--to",
    "go_to",
    multiple=True,
    help="MODEL=models:/MODEL/N, where not the newest clean one.",
)


@click.group()
def recall() -> None:
    """A data set is bad: find the devices with models of it, and take them back."""


@recall.command()
@options.server
@options.as_json
@_go_to
@dataset_options
def plan(
    server: str | None,
    json: bool,
    go_to: tuple[str, ...],
    any_use: bool,
    dataset_name: str,
    digest: str,
    content: str,
    dataset_id: str,
) -> None:
    """What a recall would do; changes nothing."""
    found = show.client(server).plan_recall(
        any_use=any_use, go_to=options.pairs(go_to), **chosen(dataset_name, digest, content, dataset_id)
    )
    if json:
        show.as_json(found)
        return
    _tell(found)


def _tell(found: records.RecallPlan) -> None:
    show.table(
        ("VERSION", "HOW IT COMES FROM THE DATA"),
        [(f"{item.model}/{item.version}", "; ".join(item.way)) for item in found.versions],
        empty="No registered version was trained on it.",
    )
    click.echo()
    show.table(
        ("TARGET", "HAS", "HOW", "STATUS", "DEPLOYMENT", "WHAT IS DONE", "GOES TO"),
        [
            (
                item.target,
                f"{item.model}/{item.version}",
                ", ".join(item.bonds),
                item.status,
                item.deployment,
                item.remedy.replace("_", " "),
                item.goes_to,
            )
            for item in found.devices
        ],
        empty="No device has to do with it.",
    )


@recall.command()
@options.server
@options.as_json
@_go_to
@dataset_options
@click.option("--why", required=True, help="Why, for the history and the report.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", "wait_s", default=0.0, help="Seconds to wait for the devices; 0: do not.")
def execute(
    server: str | None,
    json: bool,
    go_to: tuple[str, ...],
    any_use: bool,
    dataset_name: str,
    digest: str,
    content: str,
    dataset_id: str,
    why: str,
    yes: bool,
    wait_s: float,
) -> None:
    """Hold the models of a data set back, and roll its devices out to others."""
    client = show.client(server)
    which = chosen(dataset_name, digest, content, dataset_id)
    if not yes:
        found = client.plan_recall(any_use=any_use, go_to=options.pairs(go_to), **which)
        _tell(found)
        click.confirm(f"\nRecall it from {len(found.devices)} devices?", abort=True)
    detail = client.recall(why, any_use=any_use, go_to=options.pairs(go_to), **which)
    _follow(server, detail, wait_s, json=json)


def _follow(server: str | None, detail: records.RecallDetail, wait_s: float, *, json: bool) -> None:
    if wait_s and not detail.recall.done:
        detail = show.client(server).wait_for_recall(detail.recall.id, wait_s)
    if json:
        show.as_json(detail)
    else:
        _stand(detail)
    if wait_s and not detail.recall.done:
        raise click.exceptions.Exit(_NOT_DONE)


def _stand(detail: records.RecallDetail) -> None:
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in detail.recall.counts.items())
    click.echo(f"{detail.recall.id}: {counts or 'no device'}")
    show.table(
        ("TARGET", "HAD", "WHAT IS DONE", "GOES TO", "NOW", "LAST SEEN", "ERROR"),
        [
            (
                item.target,
                f"{item.model}/{item.version}" if item.model else "found later",
                item.remedy.replace("_", " "),
                item.goes_to,
                item.status.replace("_", " "),
                show.ago(item.last_seen_at),
                item.error,
            )
            for item in detail.devices
            if item.status != "corrected"
        ],
        empty="Every device is off the models of that data.",
    )


@recall.command("list")
@options.server
@options.as_json
@click.option("--standing", is_flag=True, help="Without those that were lifted.")
def listing(server: str | None, json: bool, standing: bool) -> None:
    """Recalls, the newest first."""
    found = show.client(server).recalls(standing=standing)
    if json:
        show.as_json(found)
        return
    show.table(
        ("RECALL", "DATA SETS", "BEGUN", "BY", "WHY", "STATE", "LIFTED"),
        [
            (
                item.id,
                "; ".join(item.datasets),
                show.ago(item.created_at),
                item.created_by,
                item.why,
                ", ".join(f"{number} {name}" for name, number in item.counts.items()),
                "" if item.lifted_at is None else show.ago(item.lifted_at),
            )
            for item in found
        ],
        empty="Nothing was ever recalled.",
    )


@recall.command("show")
@options.server
@options.as_json
@click.option("--wait", "wait_s", default=0.0, help="Seconds to wait for the devices; 0: do not.")
@click.argument("recall_id")
def showing(server: str | None, json: bool, wait_s: float, recall_id: str) -> None:
    """How far a recall is: the devices that are not corrected yet."""
    _follow(server, show.client(server).recall_detail(recall_id), wait_s, json=json)


@recall.command()
@options.server
@options.as_json
@click.argument("recall_id")
def resume(server: str | None, json: bool, recall_id: str) -> None:
    """Carry out what a recall has not, after whatever was in its way is gone."""
    _follow(server, show.client(server).resume_recall(recall_id), 0, json=json)


@recall.command()
@options.server
@options.why
@click.argument("recall_id")
def lift(server: str | None, why: str, recall_id: str) -> None:
    """End a recall: its models may be deployed again. Devices stay as they are."""
    show.client(server).lift_recall(recall_id, why)
    click.echo(f"{recall_id} is lifted.")


@recall.command()
@options.server
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; *.html is a page to print."
)
@click.argument("recall_id")
def report(server: str | None, output: Path | None, recall_id: str) -> None:
    """Evidence for an auditor: every version, device and decision."""
    client = show.client(server)
    if output is not None and output.suffix in (".html", ".htm"):
        output.write_text(client.recall_page(recall_id), encoding="utf-8")
    elif output is not None:
        output.write_bytes(show.json_text(client.recall_report(recall_id)).encode())
    else:
        show.as_json(client.recall_report(recall_id))
