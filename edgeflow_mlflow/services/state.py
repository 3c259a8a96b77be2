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

_MISSED = 3


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

    def is_online(self, last_seen_at: datetime | None) -> bool:
        """Whether a target last heard then is there."""
        return last_seen_at is not None and last_seen_at >= self.online_since

    @property
    def online_since(self) -> datetime:
        """Who was heard from then on is there: three heartbeats may be missed, or half a poll."""
        silence: float = max(
            _MISSED * self.config["devices.heartbeat_s"], 1.5 * self.config["devices.poll_s"]
        )
        return self.now() - timedelta(seconds=silence)

    @property
    def deadlines(self) -> Deadlines:
        """How long executions may wait."""
        return Deadlines(
            offline=timedelta(hours=self.config["devices.offline_deadline_h"]),
            progress=timedelta(minutes=self.config["devices.progress_deadline_m"]),
        )
