"""Every MLflow internal that we touch, in one place, for MLflow 3.15 up to 4.

MLflow releases a minor version every few weeks; what is used here was there, unchanged, in each
version of that range that was looked at. Where something may be missing, what depends on it is left
out with a warning, and the server still starts.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request

from edgeflow_mlflow import errors

logger = logging.getLogger(__name__)

_BACKEND = "_MLFLOW_SERVER_FILE_STORE"
_REGISTRY = "_MLFLOW_SERVER_REGISTRY_STORE"
_OUR_SCHEME = "edgeflow+"


# ---- how the server was started


def server_kind() -> str:
    """`uvicorn`, `gunicorn` or `waitress`: what `mlflow server` chose; uvicorn when it is not said."""
    if any(word.startswith("--waitress-opts") for word in sys.argv):
        return "waitress"
    return os.environ.get("_MLFLOW_SGI_NAME", "uvicorn")


def static_prefix() -> str:
    """MLflow's --static-prefix, without a trailing slash."""
    return os.environ.get("_MLFLOW_STATIC_PREFIX", "").rstrip("/")


def backend_uri() -> str:
    """Where MLflow keeps its rows. Our own scheme is taken off for everything that runs after this."""
    for name in (_BACKEND, _REGISTRY):
        uri = os.environ.get(name, "")
        if uri.startswith((_OUR_SCHEME, "edgeflow:")):
            os.environ[name] = plain_uri(uri)
    return os.environ.get(_BACKEND, "")


def plain_uri(uri: str) -> str:
    """A store URI without our scheme."""
    return uri.removeprefix(_OUR_SCHEME).removeprefix("edgeflow:")


def prepare_environment(
    *, backend: str, artifacts: str, static_prefix: str, allowed_hosts: tuple[str, ...]
) -> None:
    """Say to MLflow's modules in this process what `mlflow server` says to its workers."""
    os.environ[_BACKEND] = os.environ[_REGISTRY] = backend
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
    os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = artifacts
    os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
    os.environ["_MLFLOW_SGI_NAME"] = "uvicorn"
    if static_prefix:
        os.environ["_MLFLOW_STATIC_PREFIX"] = static_prefix
    if allowed_hosts:
        os.environ.setdefault(
            "MLFLOW_SERVER_ALLOWED_HOSTS", ",".join((*allowed_hosts, "localhost:*", "127.0.0.1:*"))
        )


def artifacts_only() -> bool:
    """Whether the server is to serve artifacts and nothing else."""
    return (
        "--artifacts-only" in sys.argv
        or os.environ.get("_MLFLOW_SERVER_ARTIFACTS_ONLY", "").lower() == "true"
    )


def flask_app() -> Flask:
    """MLflow's own Flask app: one per process."""
    from mlflow.server import app

    return app  # type: ignore[no-any-return]


def asgi_app(app: Flask) -> Any:
    """MLflow's ASGI app around its Flask app, without authentication."""
    from mlflow.server.fastapi_app import create_fastapi_app

    return create_fastapi_app(app)


def initialize_stores(backend: str, artifact_root: str) -> None:
    """Create or migrate MLflow's own tables, as `mlflow server` does before it starts workers."""
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(backend, backend, artifact_root)


# ---- stores


def tracking_store() -> Any:
    """The server's tracking store, made at first use."""
    from mlflow.server import handlers

    return handlers._get_tracking_store()


def registry_store() -> Any:
    """The server's model registry store, made at first use, with our hook."""
    from mlflow.server import handlers

    return handlers._get_model_registry_store()


def repository(artifact_uri: str) -> tuple[Any, str]:
    """The repository that holds an artifact URI, and the path in it.

    Inside the server `mlflow-artifacts:` points at itself, so it is followed to where the server really
    keeps the files.
    """
    from mlflow.server import handlers
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if handlers._is_servable_proxied_run_artifact_root(artifact_uri):
        path = handlers._get_proxied_run_artifact_destination_path(artifact_uri)
        scoped = getattr(handlers, "_get_workspace_scoped_repo_path_if_enabled", None)
        return handlers._get_artifact_repo_mlflow_artifacts(), scoped(path) if scoped else path
    if artifact_uri.startswith("mlflow-artifacts:"):
        raise errors.UnprocessableError(
            "the model's artifacts are behind another artifact server, which this one cannot read; "
            "start it with --serve-artifacts and --artifacts-destination"
        )
    return get_artifact_repository(
        posixpath.normpath(artifact_uri) if "://" not in artifact_uri else artifact_uri
    ), ""


def install_registry_hook(hooked: Callable[[Any], Any]) -> None:
    """Have `hooked` wrap the registry store that the server makes, whatever its URI's scheme.

    The registry of store builders is used, so the backend URI stays plain and MLflow's jobs, workspaces,
    `mlflow db upgrade` and gc keep working.
    """
    try:
        from mlflow.server import handlers
        from mlflow.store.db.db_types import DATABASE_ENGINES

        builders = handlers._model_registry_store_registry
        for scheme in DATABASE_ENGINES:
            build = builders._registry[scheme]
            builders.register(scheme, _wrapping(build, hooked))
        if handlers._model_registry_store is not None:
            handlers._model_registry_store = hooked(handlers._model_registry_store)
    except (ImportError, AttributeError, KeyError) as error:
        logger.warning(
            "this MLflow has no place for the registry hook (%s): deleting a model version that runs on a "
            "device will not be refused, and new versions are not checked",
            error,
        )


def _wrapping(build: Callable[..., Any], hooked: Callable[[Any], Any]) -> Callable[..., Any]:
    def built(*args: Any, **kwargs: Any) -> Any:
        return hooked(build(*args, **kwargs))

    return built


# ---- its page


def extend_page(app: Flask, extend: Callable[[str], str | None]) -> None:
    """Have `extend` change MLflow's index page. Where it cannot, MLflow's page is sent as it is."""
    view = app.view_functions.get("serve")
    if view is None:
        logger.warning("this MLflow serves its page in another way: the tab is at /edgeflow/ only")
        return

    def serve() -> Any:
        response = app.make_response(app.ensure_sync(view)())
        try:
            if response.status_code != 200 or response.mimetype != "text/html":
                return response
            response.direct_passthrough = False
            page = extend(response.get_data(as_text=True))
            if page is None:
                return response
            response.set_data(page)
            # The page names files by hashes: an older one would ask for files that are gone.
            response.headers["Cache-Control"] = "no-cache"
            response.headers.pop("Last-Modified", None)
            response.set_etag(hashlib.sha256(page.encode()).hexdigest()[:32])
            return response.make_conditional(request)
        except Exception:
            logger.exception("the tab could not be put into MLflow's page")
            return view()

    app.view_functions["serve"] = serve


# ---- authentication


class BasicAuth:
    """MLflow's basic-auth around its Flask app, for a server that is asked for it."""

    def __init__(self) -> None:
        try:
            from mlflow.server import auth
        except ImportError as error:
            raise errors.SettingError(
                f"basic-auth needs more packages ({error.name}): pip install 'edgeflow-mlflow[auth]'"
            ) from error
        self._auth = auth

    def wrap(self, app: Flask) -> Any:
        """The app with MLflow's guard in front; ASGI under uvicorn, Flask otherwise."""
        return self._auth.create_app(app)

    def user(self) -> tuple[str, bool]:
        """The user of the present request, and whether MLflow knows them as an admin."""
        from flask import g

        found = self._auth.authenticate_request()
        if isinstance(found, Response) or found is None or not found.username:
            raise errors.UnauthenticatedError(
                "send the name and password of an MLflow user (MLFLOW_TRACKING_USERNAME, "
                "MLFLOW_TRACKING_PASSWORD)"
            )
        g.mlflow_authenticated_user = found.username
        return found.username, bool(self._auth.store.get_user(found.username).is_admin)

    def sees_experiment(self, user: str, experiment_id: str) -> bool:
        """Whether MLflow lets a user read an experiment."""
        return self._sees("_get_experiment_permission", user, experiment_id, user)

    def sees_model(self, user: str, name: str) -> bool:
        """Whether MLflow lets a user read a registered model."""
        return self._sees("_get_registered_model_permission", user, name)

    def _sees(self, function: str, user: str, *arguments: str) -> bool:
        from mlflow.exceptions import MlflowException

        if self._auth.store.get_user(user).is_admin:
            return True
        judge = getattr(self._auth, function, None)
        if judge is None:  # an MLflow that judges elsewhere: only admins see
            return False
        try:
            return bool(judge(*arguments).can_read)
        except MlflowException:
            return False


# ---- how it listens


def listening_host(argv: list[str] | None = None) -> str:
    """The --host (or --bind) that the server's command line names; loopback when it names none."""
    arguments = sys.argv if argv is None else argv
    for index, word in enumerate(arguments):
        for flag in ("--host", "-h", "--bind", "-b"):
            if word == flag and index + 1 < len(arguments):
                return _host_of(arguments[index + 1])
            if word.startswith(flag + "="):
                return _host_of(word.partition("=")[2])
    return "127.0.0.1"


def _host_of(bind: str) -> str:
    if bind.startswith("unix:"):
        return "127.0.0.1"
    host, _, port = bind.rpartition(":")
    return (host if host and port.isdigit() else bind).strip("[]")
