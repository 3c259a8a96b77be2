"""The command `edgeflow`."""

from __future__ import annotations

import click

from edgeflow_agent.version import VERSION
from edgeflow_mlflow.cli.alerts import alerts
from edgeflow_mlflow.cli.completion import completion
from edgeflow_mlflow.cli.db import db
from edgeflow_mlflow.cli.deploy import deploy
from edgeflow_mlflow.cli.deployments import deployments
from edgeflow_mlflow.cli.doctor import doctor
from edgeflow_mlflow.cli.drift import drift, drift_report, refused_telemetry, telemetry
from edgeflow_mlflow.cli.fleets import fleets
from edgeflow_mlflow.cli.lineage import diff, lineage
from edgeflow_mlflow.cli.models import models, runs
from edgeflow_mlflow.cli.recall import recall
from edgeflow_mlflow.cli.rollouts import audit, rollouts
from edgeflow_mlflow.cli.server import server
from edgeflow_mlflow.cli.simulate import simulate
from edgeflow_mlflow.cli.status import status
from edgeflow_mlflow.cli.targets import targets
from edgeflow_mlflow.cli.tokens import tokens


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="edgeflow")
def main() -> None:
    """Which model runs on which device, and taking it back."""


for command in (
    server,
    status,
    tokens,
    targets,
    fleets,
    deploy,
    deployments,
    rollouts,
    models,
    runs,
    lineage,
    diff,
    recall,
    drift,
    drift_report,
    telemetry,
    refused_telemetry,
    alerts,
    audit,
    simulate,
    db,
    doctor,
    completion,
):
    main.add_command(command)
