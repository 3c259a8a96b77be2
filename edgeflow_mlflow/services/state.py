"""What every use case works with: the database, the settings, the keys and the model files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from edgeflow_mlflow.config import Config
from edgeflow_mlflow.db.engine import Database
from edgeflow_mlflow.domain.projection import Deadlines
from edgeflow_mlflow.services.blobs import BlobStore
from edgeflow_mlflow.services.keyring import Keyring


def utc_now() -> datetime:
    """The server's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class State:
    """Made once per process; every part is safe to share between threads."""

    config: Config
    database: Database
    keyring: Keyring
    blobs: BlobStore
    now: Callable[[], datetime] = utc_now

    @property
    def deadlines(self) -> Deadlines:
        """How long executions may wait."""
        return Deadlines(
            offline=timedelta(hours=self.config["devices.offline_deadline_h"]),
            progress=timedelta(minutes=self.config["devices.progress_deadline_m"]),
        )
