"""`edgeflow db`: the tables of Edgeflow, on the machine of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeflow_mlflow import config, errors

if TYPE_CHECKING:
    from edgeflow_mlflow.db.engine import Database

_backend = click.option(
    "--backend-store-uri",
    default="sqlite:///mlflow.db",
    show_default=True,
    envvar="MLFLOW_BACKEND_STORE_URI",
    help="Where MLflow keeps its rows; Edgeflow's are beside them, or where [server] database_url says.",
)
_config = click.option(
    "--config", "config_file", default=None, type=click.Path(dir_okay=False), help="The file edgeflow.toml."
)


@click.group()
def db() -> None:
    """The database: where it is, and bringing it up to date."""


@db.command()
@_backend
@_config
def check(backend_store_uri: str, config_file: str | None) -> None:
    """Whether the tables are those of this release; exit code 1 when not."""
    from edgeflow_mlflow.db import migrate

    database = _open(backend_store_uri, config_file)
    click.echo(f"database  {database.url.render_as_string()}")
    found = migrate.revisions(database)
    click.echo(f"tables    {found.present or 'none yet'}, this release has {found.newest}")
    if database.is_sqlite:
        _check_lock(database)
    if found.present != found.newest:
        raise click.ClickException("the tables are not those of this release: run `edgeflow db upgrade`")


@db.command()
@_backend
@_config
def upgrade(backend_store_uri: str, config_file: str | None) -> None:
    """Bring the tables up to date; a server does this at its start. Servers of the release before go on."""
    from edgeflow_mlflow.db import migrate

    database = _open(backend_store_uri, config_file)
    before = migrate.revisions(database).present
    migrate.upgrade(database)
    click.echo(
        f"{database.url.render_as_string()}: {before or 'nothing'} to {migrate.revisions(database).newest}"
    )


def _check_lock(database: Database) -> None:
    """Raise ClickException when another process keeps SQLite from being written."""
    from sqlalchemy.exc import OperationalError

    try:
        with database.write() as session:
            session.rollback()
    except OperationalError as error:
        raise click.ClickException(
            "another process holds the database: end it (two servers on one file, a backup, an open shell)"
        ) from error
    click.echo("lock      free")


def _open(backend: str, config_file: str | None) -> Database:
    from sqlalchemy.exc import SQLAlchemyError

    from edgeflow_mlflow.db.engine import Database
    from edgeflow_mlflow.services import opening

    try:
        settings = opening.resolve(config.load(file=config_file), backend)
        database = Database(settings["server.database_url"])
        with database.engine.connect():
            return database
    except errors.SettingError as error:
        raise click.ClickException(str(error)) from error
    except SQLAlchemyError as error:
        raise click.ClickException(f"the database cannot be opened: {error}") from error
