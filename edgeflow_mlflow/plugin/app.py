"""The app that `mlflow server --app-name edgeflow` loads: MLflow's own, with the fleet added."""

from __future__ import annotations

import atexit
import functools
import ipaddress
import logging
import multiprocessing
import os
import secrets
import signal
from pathlib import Path
from typing import Any, NoReturn

import click
from flask import Flask

from edgeflow_mlflow import config, errors
from edgeflow_mlflow.api.origin import is_loopback
from edgeflow_mlflow.config import Config
from edgeflow_mlflow.services import keyring, lease

logger = logging.getLogger(__name__)

_FLASK_SECRET_BYTES = 32


def __getattr__(name: str) -> Any:
    # `mlflow server` looks the factory up in its own process before it starts any worker: the one moment
    # at which a wrong setting can end the command with one line. A worker that refused would only be
    # started again.
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        preflight()
    except errors.SettingError as error:
        raise click.ClickException(str(error)) from error
    return _create_app


def _create_app(app: Flask | None = None) -> Any:
    """MLflow's app with Edgeflow: ASGI under uvicorn, Flask under gunicorn. Called once per worker."""
    from edgeflow_mlflow.plugin import compat  # MLflow's server is loaded here, not at import

    try:
        return build(preflight(), app or compat.flask_app())
    except errors.SettingError as error:
        _refuse(str(error))


def preflight() -> Config:
    """The settings, when a server may be started with them the way it is being started."""
    from edgeflow_mlflow.plugin import compat

    settings = config.load()
    if compat.server_kind() == "waitress":
        raise errors.SettingError(
            "Edgeflow does not run under waitress: leave --waitress-opts out (uvicorn is the default), "
            "or use --gunicorn-opts"
        )
    if compat.artifacts_only():
        raise errors.SettingError("Edgeflow needs the tracking server: leave --artifacts-only out")
    check_exposure(settings, compat.listening_host())
    return settings


def build(settings: Config, app: Flask) -> Any:
    """Assemble everything on MLflow's Flask app and start standing for the hub's election."""
    from edgeflow_mlflow.api import blueprint
    from edgeflow_mlflow.api.asgi import EdgeflowASGI
    from edgeflow_mlflow.catalog import Catalog, Model
    from edgeflow_mlflow.hub.election import Elector
    from edgeflow_mlflow.plugin import compat
    from edgeflow_mlflow.plugin.registry_hook import RegistryHook
    from edgeflow_mlflow.plugin.registry_pass import RegistryPass
    from edgeflow_mlflow.services import opening
    from edgeflow_mlflow.ui import pages

    backend = compat.backend_uri()
    settings = opening.resolve(settings, backend)
    compat.tracking_store()  # MLflow's own tables come first
    state = opening.open_state(settings)
    catalog = Catalog(
        tracking=compat.tracking_store,
        registry=compat.registry_store,
        repository=compat.repository,
        max_bytes=settings["limits.model_mb"] * 2**20,
    )

    def fetch(source: str, folder: Path) -> Any:
        if source.startswith("models:/"):
            return catalog.fetch(catalog.resolve(source), folder)
        return catalog.fetch(Model(name="", version="", artifact_uri=source), folder)

    compat.install_registry_hook(RegistryHook(state, fetch).wrap)
    auth = None
    access = blueprint.Access()
    if settings["server.auth"] == "basic-auth":
        _provide_flask_secret(Path(settings["server.data_dir"]))
        auth = compat.BasicAuth()
        access = blueprint.Access(
            user=auth.user, sees_experiment=auth.sees_experiment, sees_model=auth.sees_model
        )
    prefix = compat.static_prefix()
    blueprint.install(app, prefix=prefix, state=state, catalog=catalog, access=access)
    pages.install(
        app, prefix=prefix, allowed_hosts=frozenset(settings["server.allowed_hosts"]), user=access.user
    )
    compat.extend_page(app, pages.into)
    app.extensions["edgeflow"] = state
    elector = Elector(settings, RegistryPass(state, catalog), functools.partial(lease.silence, state))
    elector.start()
    atexit.register(elector.stop)
    if auth is not None:
        inner = auth.wrap(app)
    else:
        inner = app if compat.server_kind() == "gunicorn" else compat.asgi_app(app)
    if compat.server_kind() == "gunicorn":
        return inner
    return EdgeflowASGI(inner, state=state, catalog=catalog, prefix=prefix)


def check_exposure(settings: Config, host: str) -> None:
    """Refuse to listen to the network without authentication and TLS, unless that is asked for by name:
    HTTP on `host`, MQTT on the address of its setting."""
    _check_http(settings, host)
    if settings["mqtt.broker"] == "embedded":
        _check_mqtt(settings)


def _check_http(settings: Config, host: str) -> None:
    if is_loopback(host):
        return
    if settings["server.insecure"] == "i-know":
        logger.warning(
            "EXPOSED: listening on %s without the protection of TLS and authentication, as [server] "
            "insecure = 'i-know' asks for: whoever reaches this port decides what runs on every device",
            host,
        )
        return
    if settings["server.auth"] and settings["server.behind_proxy"]:
        return
    raise errors.SettingError(
        f"refusing to listen on {host}: whoever reaches it could decide what runs on your devices. Either "
        "listen on 127.0.0.1, or set [server] auth = 'basic-auth' and put a proxy with TLS in front "
        "([server] behind_proxy = true), or, in a network that you trust, set [server] insecure = 'i-know' "
        "(EDGEFLOW_SERVER_INSECURE=i-know)"
    )


def _check_mqtt(settings: Config) -> None:
    host = settings["mqtt.host"]
    if is_loopback(host):
        return
    if _is_every_address(host) and not settings["mqtt.public_url"]:
        raise errors.SettingError(
            f"[mqtt] host = {host!r} means every address of this machine, which is none that devices can "
            "connect to: set [mqtt] host to the address under which they reach it, or say that in [mqtt] "
            "public_url, as mqtts://name:8883 (EDGEFLOW_MQTT_PUBLIC_URL)"
        )
    if settings["mqtt.certfile"]:
        return
    if settings["server.insecure"] == "i-know":
        logger.warning(
            "EXPOSED: MQTT on %s without TLS, as [server] insecure = 'i-know' asks for: whoever listens on "
            "the way can read what devices say, and act as them",
            host,
        )
        return
    raise errors.SettingError(
        f"refusing to let the MQTT broker listen on {host} without TLS: device credentials would cross the "
        "network in the clear. Set [mqtt] certfile and keyfile, or mqtt.host = '127.0.0.1', or, in a network "
        "that you trust, [server] insecure = 'i-know' (EDGEFLOW_SERVER_INSECURE=i-know)"
    )


def _is_every_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _provide_flask_secret(data: Path) -> None:
    """MLflow's basic-auth wants one secret for all workers; keep one for whoever did not set it."""
    if os.environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY"):
        return
    path = data / "keys" / "flask.key"
    secret = keyring.read_or_make(path, lambda: secrets.token_hex(32).encode())
    if len(secret) < _FLASK_SECRET_BYTES:
        raise errors.SettingError(
            f"{path} holds {len(secret)} bytes, too few for a secret: remove it and start again (a new one "
            "is made, and users log in again)"
        )
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secret.decode(errors="replace")


def _refuse(message: str) -> NoReturn:
    """End the server with one clear line. A worker that only ended itself would be started again, for
    ever, so its supervisor is told to end as well."""
    logger.error("%s", message)
    print(f"edgeflow: {message}", flush=True)  # noqa: T201 - the log may not be set up yet
    if multiprocessing.parent_process() is not None:
        os.kill(os.getppid(), signal.SIGTERM)
    raise SystemExit(1)
