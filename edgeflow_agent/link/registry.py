"""Fetching a version out of an MLflow registry over its plain HTTP API, without mlflow on this device.

The files come through the tracking server. Where it hands out only the address of a store of its own
(`s3://…`), the `mlflow` command does the fetching, if it is installed.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
from pathlib import Path, PurePosixPath
from typing import Any

from edgeflow_agent import errors
from edgeflow_agent.link.http import Server, describe

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_CHUNK = 256 * 1024
_MAX_ANSWER = 4 * 2**20
_MAX_FILES = 256
_DOWNLOAD_GAP_S = 30.0


def pull(
    uri: str, name: str, *, version: str, alias: str, into: Path, ca_file: str = "", timeout_s: float = 10.0
) -> tuple[Path, str]:
    """The folder of a model version on this disk, and the version's number. One that was pulled before is
    not asked for again: versions do not change, and the network may be away."""
    if version and (folder := _folder(into, name, version)).is_dir():
        return folder, version
    if not uri:
        raise errors.ConfigError(
            "say where the registry is: --tracking-uri http://host:5000, or MLFLOW_TRACKING_URI"
        )
    place = _Place(Server(uri, ca_file=ca_file, timeout_s=timeout_s))
    if alias:
        version = place.version_of(name, alias)
    folder = _folder(into, name, version)
    if folder.is_dir():
        return folder, version
    location = place.location_of(name, version)
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".pulling-", ignore_cleanup_errors=True) as draft:
        if location.startswith("mlflow-artifacts:"):
            place.copy(urllib.parse.urlsplit(location).path.lstrip("/"), Path(draft))
        else:
            _by_command(uri, name, version, location, Path(draft))
        folder.parent.mkdir(exist_ok=True)
        Path(draft).replace(folder)
    return folder, version


def _folder(into: Path, name: str, version: str) -> Path:
    return into / urllib.parse.quote(name, safe="").replace(".", "%2E") / version


class _Place:
    """The HTTP API of a tracking server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def version_of(self, name: str, alias: str) -> str:
        found = self._ask(f"{_API}/registered-models/alias", name=name, alias=alias)
        return str(found["model_version"]["version"])

    def location_of(self, name: str, version: str) -> str:
        found = self._ask(f"{_API}/model-versions/get-download-uri", name=name, version=version)
        return str(found["artifact_uri"])

    def copy(self, path: str, folder: Path) -> None:
        """Every file below an artifact path, flat folders within included."""
        waiting = [(path, folder)]
        copied = 0
        while waiting:
            at, target = waiting.pop()
            for item in self._ask(_ARTIFACTS, path=at).get("files") or ():
                name = PurePosixPath(str(item["path"])).name
                if name in ("", ".", ".."):
                    raise errors.TransferError(f"the registry names a file {item['path']!r}")
                if item.get("is_dir"):
                    (target / name).mkdir()
                    waiting.append((f"{at}/{name}", target / name))
                    continue
                copied += 1
                if copied > _MAX_FILES:
                    raise errors.TransferError(f"the model has over {_MAX_FILES} files")
                self._download(f"{at}/{name}", target / name)

    def _download(self, path: str, target: Path) -> None:
        connection, response = self._get(f"{_ARTIFACTS}/{urllib.parse.quote(path)}", _DOWNLOAD_GAP_S)
        try:
            with target.open("wb") as file:
                shutil.copyfileobj(response, file, _CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise errors.TransferError(f"{path} was cut off: {describe(error)}; try again") from error
        finally:
            connection.close()
        expected = response.getheader("Content-Length")
        if expected is not None and target.stat().st_size != int(expected):
            raise errors.TransferError(f"{path} was cut off; try again")

    def _ask(self, route: str, **query: str) -> dict[str, Any]:
        connection, response = self._get(f"{route}?{urllib.parse.urlencode(query)}", self._server.timeout_s)
        try:
            found = json.loads(response.read(_MAX_ANSWER))
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            raise errors.TransferError(f"{self._server.url} gave no readable answer: {error}") from error
        finally:
            connection.close()
        if not isinstance(found, dict):
            raise errors.TransferError(f"{self._server.url} gave no readable answer")
        return found

    def _get(
        self, path: str, timeout_s: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._server.connect(timeout_s)
        try:
            connection.request("GET", self._server.target(path), headers=_login())
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise errors.TransferError(
                f"cannot reach the registry at {self._server.url}: {describe(error)}", reason="unreachable"
            ) from error
        if response.status != 200:
            text = response.read(4096).decode(errors="replace")
            connection.close()
            raise errors.TransferError(
                f"the registry at {self._server.url} answered {response.status}: {_message(text)}",
                retry=False,
            )
        return connection, response


def _login() -> dict[str, str]:
    """The login that MLflow's own clients take from the environment."""
    headers = {"Accept-Encoding": "identity"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    elif user:
        words = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
    return headers


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return " ".join(text.split())[:300]


def _by_command(uri: str, name: str, version: str, location: str, folder: Path) -> None:
    command = shutil.which("mlflow")
    if command is None:
        raise errors.ConfigError(
            f"the files of {name} {version} lie at {location}: install the `mlflow` command on this device "
            "(pip install mlflow-skinny, and the store's own package), or let the tracking server serve them"
        )
    done = subprocess.run(  # noqa: S603 - a name and a number that the registry knows
        [command, "artifacts", "download", "-u", f"models:/{name}/{version}", "-d", str(folder)],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise errors.TransferError(f"mlflow could not fetch {name} {version}: {done.stderr.strip()[-600:]}")
