"""`edgeflow server`: MLflow and Edgeflow in one process, with the hub as its child."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Any, NoReturn

import click

from edgeflow_mlflow import config, errors
from edgeflow_mlflow.config import Config


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535), help="HTTP port.")
@click.option(
    "--backend-store-uri",
    default="sqlite:///mlflow.db",
    show_default=True,
    envvar="MLFLOW_BACKEND_STORE_URI",
    help="Where MLflow keeps its rows.",
)
@click.option(
    "--artifacts-destination",
    default="./mlartifacts",
    show_default=True,
    envvar="MLFLOW_ARTIFACTS_DESTINATION",
    help="Where MLflow keeps artifacts.",
)
@click.option("--static-prefix", default="", help="Path in front of every route.")
@click.option("--allowed-hosts", default=None, help="Host names under which the server answers, with commas.")
@click.option(
    "--config", "config_file", default=None, type=click.Path(dir_okay=False), help="The file edgeflow.toml."
)
@click.option("--data-dir", default=None, help="Keys, model files and locks.")
@click.option("--auth", default=None, type=click.Choice(["basic-auth"]), help="Put MLflow's users in front.")
@click.option("--mqtt-broker", default=None, help="embedded, off, or mqtt(s)://… of an external broker.")
@click.option("--mqtt-host", default=None, help="Address of the embedded broker.")
@click.option("--mqtt-port", default=None, type=click.IntRange(0, 65535), help="Port of the embedded broker.")
@click.option(
    "--jobs/--no-jobs",
    default=False,
    show_default=True,
    help="MLflow's background jobs, in processes of their own.",
)
def server(
    host: str,
    port: int,
    backend_store_uri: str,
    artifacts_destination: str,
    static_prefix: str,
    allowed_hosts: str | None,
    config_file: str | None,
    data_dir: str | None,
    auth: str | None,
    mqtt_broker: str | None,
    mqtt_host: str | None,
    mqtt_port: int | None,
    jobs: bool,
) -> None:
    """Run MLflow with Edgeflow on this machine."""
    flags = {
        "server.data_dir": data_dir,
        "server.auth": auth,
        "server.allowed_hosts": allowed_hosts,
        "mqtt.broker": mqtt_broker,
        "mqtt.host": mqtt_host,
        "mqtt.port": mqtt_port,
    }
    try:
        settings = config.load(file=config_file, flags=flags)
        check_mqtt_port(settings)
        if jobs:
            _with_jobs(settings, host, port, backend_store_uri, artifacts_destination, static_prefix)
        serve(settings, host, port, backend_store_uri, artifacts_destination, static_prefix)
    except errors.SettingError as error:
        raise click.ClickException(str(error)) from error


def serve(settings: Config, host: str, port: int, backend: str, artifacts: str, static_prefix: str) -> None:
    """Listen until told to stop."""
    if static_prefix and (not static_prefix.startswith("/") or static_prefix.endswith("/")):
        raise errors.SettingError("--static-prefix begins with / and does not end with it")
    os.environ.update(settings.environment())
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    from edgeflow_mlflow.plugin import app, compat

    app.check_exposure(settings, host)
    listener = bind(host, port)
    hosts = settings["server.allowed_hosts"]
    compat.prepare_environment(
        backend=backend, artifacts=artifacts, static_prefix=static_prefix, allowed_hosts=hosts
    )
    compat.initialize_stores(compat.backend_uri(), "mlflow-artifacts:/")
    asgi = app.build(settings, compat.flask_app())
    import uvicorn

    address = f"http://{host}:{listener.getsockname()[1]}{static_prefix}"
    click.echo(f"Edgeflow and MLflow at {address}  (Ctrl-C ends)")
    click.echo(f"Let a device in: MLFLOW_TRACKING_URI={address} edgeflow tokens create")
    runner = uvicorn.Server(uvicorn.Config(asgi, log_level="warning", timeout_graceful_shutdown=5))
    runner.run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, or SettingError that says what to change."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise errors.SettingError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port or --host"
        ) from error
    return listener


def check_mqtt_port(settings: Config) -> None:
    """Say at once that the broker's port is taken: later the hub could only log it."""
    if settings["mqtt.broker"] != "embedded" or not settings["mqtt.port"]:
        return
    host, port = settings["mqtt.host"], settings["mqtt.port"]
    try:
        bind(host, port).close()
    except errors.SettingError as error:
        raise errors.SettingError(
            f"the MQTT port {port} on {host} cannot be used ({error.__cause__}): choose another with "
            "--mqtt-port, [mqtt] port in edgeflow.toml or EDGEFLOW_MQTT_PORT (0 takes a free one)"
        ) from error


def _with_jobs(
    settings: Config, host: str, port: int, backend: str, artifacts: str, static_prefix: str
) -> NoReturn:
    program = shutil.which("mlflow")
    if program is None:
        raise errors.SettingError("--jobs needs the command `mlflow` on the PATH")
    os.environ.update(settings.environment())
    words: list[Any] = [program, "server", "--app-name", "edgeflow", "--workers", "1", "--host", host]
    words += ["--port", port, "--backend-store-uri", backend, "--artifacts-destination", artifacts]
    if static_prefix:
        words += ["--static-prefix", static_prefix]
    os.execv(program, [str(word) for word in words])  # noqa: S606 - MLflow's own launcher takes over
