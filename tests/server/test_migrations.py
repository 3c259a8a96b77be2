"""Tables come from migrations alone, they agree with the models, and any number of processes may upgrade."""

from __future__ import annotations

import subprocess
import sys

from sqlalchemy import inspect, text

from edgeflow_mlflow.db import migrate, models
from edgeflow_mlflow.db.engine import Database

UPGRADE = """
import sys
from edgeflow_mlflow.db import engine, migrate
migrate.upgrade(engine.Database(sys.argv[1]))
"""


def test_migrations_make_what_the_models_say(database_url: str) -> None:
    database = Database(database_url)
    migrate.upgrade(database)
    migrate.upgrade(database)
    assert migrate.differences(database) == []
    assert set(inspect(database.engine).get_table_names()) == {
        *models.Base.metadata.tables,
        migrate.VERSION_TABLE,
    }
    database.dispose()


def test_several_processes_upgrade_at_once(database_url: str) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", UPGRADE, database_url]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    database = Database(database_url)
    assert migrate.differences(database) == []
    database.dispose()


def test_a_database_of_mlflow_keeps_both(database_url: str) -> None:
    """MLflow's own migrations come first; ours then leave its tables alone."""
    from mlflow.store.db.utils import _initialize_tables

    database = Database(database_url)
    _initialize_tables(database.engine)
    before = set(inspect(database.engine).get_table_names())
    migrate.upgrade(database)
    assert migrate.differences(database) == []
    after = set(inspect(database.engine).get_table_names())
    assert before < after
    with database.engine.connect() as link:
        assert link.execute(text(f"SELECT version_num FROM {migrate.VERSION_TABLE}")).scalar()
    database.dispose()
