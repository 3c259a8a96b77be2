"""Where everything lives, and opening it: data folder, database, keys, model files."""

from __future__ import annotations

import os
from pathlib import Path

from edgeflow_mlflow import errors
from edgeflow_mlflow.config import Config
from edgeflow_mlflow.db import migrate, models
from edgeflow_mlflow.db.engine import Database, normalise
from edgeflow_mlflow.services import leftovers
from edgeflow_mlflow.services.blobs import BlobStore
from edgeflow_mlflow.services.keyring import open_keyring
from edgeflow_mlflow.services.state import State

_ROOT_FACT = "root_fingerprint"


def resolve(config: Config, backend_uri: str | None) -> Config:
    """Fill in where data and database are, from where MLflow's database is.

    Beside MLflow's SQLite file, in a file of our own: MLflow does not use WAL, and sharing its file made
    its own writes wait. With PostgreSQL, in the same database.
    """
    values = dict(config.values)
    folder = Path.cwd()
    url = None
    if backend_uri and "://" in backend_uri:
        url = normalise(backend_uri)
        if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
            folder = Path(url.database).absolute().parent
    data = Path(str(values["server.data_dir"]) or folder / "edgeflow-data").absolute()
    values["server.data_dir"] = str(data)
    if not values["server.database_url"]:
        is_server = url is not None and url.get_backend_name() != "sqlite"
        values["server.database_url"] = (
            url.render_as_string(hide_password=False)
            if is_server and url is not None
            else f"sqlite:///{folder / 'edgeflow.db'}"
        )
    return Config(values)


def open_state(config: Config, *, upgrade: bool = True) -> State:
    """Open what `resolve` has located; make it at the first start. Raise SettingError when it cannot be."""
    data = Path(config["server.data_dir"])
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        database_url = normalise(config["server.database_url"])
        if database_url.get_backend_name() == "sqlite" and database_url.database:
            Path(database_url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.SettingError(f"cannot make {data}: {error.strerror}; set [server] data_dir") from error
    if not os.access(data, os.W_OK):
        raise errors.SettingError(f"cannot write to {data}; set [server] data_dir to a folder of your own")
    database = Database(config["server.database_url"])
    if upgrade:
        migrate.upgrade(database)
        leftovers.remove(data)
    keyring = open_keyring(data / "keys")
    _check_keys(database, keyring.fleet, data)
    return State(config=config, database=database, keyring=keyring, blobs=BlobStore(data / "blobs"))


def _check_keys(database: Database, fingerprint: str, data: Path) -> None:
    # Devices trust one root key. A second server on the same database with keys of its own would sign
    # documents that every device refuses.
    with database.read() as session:
        known = session.get(models.Fact, _ROOT_FACT)
    if known is None:
        with database.write() as session:
            known = session.get(models.Fact, _ROOT_FACT)
            if known is None:
                session.add(models.Fact(name=_ROOT_FACT, value=fingerprint))
                return
    if known.value != fingerprint:
        raise errors.SettingError(
            f"the keys in {data / 'keys'} are not those that this database's devices trust: copy the folder "
            "`keys` from the data_dir of the first server (or from a backup) and start again"
        )
