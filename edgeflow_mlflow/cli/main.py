"""The command `edgeflow`."""

from __future__ import annotations

import click

from edgeflow_agent.version import VERSION
from edgeflow_mlflow.cli.alerts import alerts
from edgeflow_mlflow.cli.deployments import deployments
from edgeflow_mlflow.cli.drift import drift, telemetry
from edgeflow_mlflow.cli.lineage import diff, lineage
from edgeflow_mlflow.cli.recall import recall
from edgeflow_mlflow.cli.rollouts import audit, rollouts
from edgeflow_mlflow.cli.server import server
from edgeflow_mlflow.cli.simulate import simulate
from edgeflow_mlflow.cli.targets import targets
from edgeflow_mlflow.cli.tokens import tokens


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="edgeflow")
def main() -> None:
    """Which model runs on which device, and taking it back."""


for command in (
    server,
    tokens,
    targets,
    deployments,
    rollouts,
    audit,
    lineage,
    diff,
    recall,
    drift,
    telemetry,
    alerts,
    simulate,
):
    main.add_command(command)
