"""What tests of the server share: databases, servers, and a registered model."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import harness

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
for name in [item for item in os.environ if item.startswith("EDGEFLOW_")]:
    del os.environ[name]


# Files with the longest tests begin first, so that no worker is left alone with one of them at the end.
_LONGEST = (
    "tests/acceptance/",
    "tests/agent/test_agent_conformance",
    "tests/agent/test_agent_crash",
    "tests/agent/test_agent_faults",
    "tests/agent/test_agent_fuzz",
    "tests/packaging/",
    "tests/server/test_fleet_machine",
)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: most tests wait for processes."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files, the long ones first."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONGEST))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server; skipped with a word where it is not installed, never in CI."""
    with harness.postgres() as url:
        if url is None:
            assert not harness.IN_CI, "PostgreSQL must be installed in CI"
            pytest.skip("PostgreSQL is not installed (make test installs it where it can)")
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/edgeflow.db"
    return harness.new_database(request.getfixturevalue("postgres_url"), f"t{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Server]:
    """One `edgeflow server` for all tests that can share it."""
    started = harness.Server(tmp_path_factory.mktemp("server")).start()
    yield started
    started.stop()


@pytest.fixture
def agents(server: harness.Server, tmp_path: Path) -> Iterator[list[harness.Agent]]:
    """Agents that a test adds here are ended after it."""
    started: list[harness.Agent] = []
    yield started
    for agent in started:
        agent.stop()


@pytest.fixture
def agent(server: harness.Server, agents: list[harness.Agent], tmp_path: Path) -> harness.Agent:
    """An enrolled agent that runs."""
    made = harness.Agent(server, f"robot-{uuid.uuid4().hex[:8]}", tmp_path).enrol().start()
    agents.append(made)
    return made


@pytest.fixture(scope="session")
def iris(server: harness.Server) -> str:
    """A model with two versions, logged by the example script; its name."""
    for estimator in ("logistic", "forest"):
        harness.command(
            "python",
            str(harness.ROOT / "examples" / "train_iris.py"),
            "--estimator",
            estimator,
            environment=server.environment_of_clients(),
        )
    return "iris"
