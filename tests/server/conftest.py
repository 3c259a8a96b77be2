"""The server's use cases on real databases, without a server process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from edgeflow_agent.wire import documents, signing
from edgeflow_mlflow import config
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import opening
from edgeflow_mlflow.services.state import State


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path, database_url: str, clock: Clock) -> Iterator[State]:
    """All that use cases need, on SQLite and on PostgreSQL."""
    settings = config.load(
        environment={},
        flags={"server.data_dir": str(tmp_path / "data"), "server.database_url": database_url},
    )
    opened = dataclasses.replace(opening.open_state(opening.resolve(settings, None)), now=clock)
    yield opened
    opened.database.dispose()


def add_target(state: State, name: str, **labels: str) -> None:
    with state.database.write() as session:
        session.add(models.Target(id=name, labels=labels, created_at=state.now()))


def add_bundle(state: State, version: str = "1", name: str = "iris") -> models.Bundle:
    """A published model whose files are not looked at."""
    files = [documents.FileRef(path="model.onnx", sha256=sha256(version.encode()).hexdigest(), size=5)]
    row = models.Bundle(
        id=f"bundle-{name}-{version}",
        digest=documents.bundle_digest(files),
        model_name=name,
        model_version=version,
        run_id=f"run-{version}",
        source=f"somewhere/{name}/{version}",
        files=[documents.to_builtins(item) for item in files],
        entry="model.onnx",
        interface={},
        lineage={"run": {"id": f"run-{version}", "experiment_id": "1"}},
        created_at=state.now(),
    )
    with state.database.write() as session:
        session.add(row)
    return row


def document(state: State, target: str) -> documents.DesiredState:
    with state.database.read() as session:
        row = session.get_one(models.Target, target)
    trust = signing.verify_trust(state.keyring.trust, state.keyring.root_key)
    assert row.document is not None
    found, _ = signing.verify_desired(
        row.document, signing.trusted_keys(trust), fleet=state.keyring.fleet, target=target
    )
    return found
