"""The deployment in work and the ratchet, on disk before any effect."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from edgeflow_agent import typed
from edgeflow_agent.core.machine import Work
from edgeflow_agent.store import durable
from edgeflow_agent.wire.documents import DesiredDeployment, TrialFigures
from edgeflow_agent.wire.states import State

logger = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment in work. `before_current` and `before_previous` are the releases that the pointers
    named before this one was activated: what a revert restores. `watched_s` is how long its trial has been
    watched, over all starts of the agent, to about a minute; `figures` what was last counted on it."""

    deployment: DesiredDeployment
    generation: int
    key: str
    work: Work
    state: State
    attempt: int = 1
    tries: int = 0
    saves: int = 0
    activated: bool = False
    stopped_cleanly: bool = False
    before_current: str = ""
    before_previous: str = ""
    reason: str = ""
    message: str = ""
    watched_s: float = 0.0
    figures: TrialFigures | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the journal keeps."""

    handled: dict[str, int] = {}
    active: Entry | None = None


class _Ratchet(msgspec.Struct, frozen=True, kw_only=True):
    handled: dict[str, int] = {}


class Journal:
    """One small file, replaced as a whole; the ratchet is kept a second time, so that a damaged journal
    does not let an old document in."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "journal.json"
        self._ratchet = state_dir / "ratchet.json"
        self.record = self._read()

    def _read(self) -> Record:
        try:
            return typed.read(Record, durable.patiently(self._path.read_bytes))
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            self._put_aside(error)
        try:
            ratchet = typed.read(_Ratchet, durable.patiently(self._ratchet.read_bytes))
        except (OSError, msgspec.MsgspecError):
            return Record()
        return Record(handled=ratchet.handled)

    def _put_aside(self, damage: Exception) -> None:
        aside = self._path.with_name(f"journal.corrupt-{int(time.time())}")
        logger.error("the journal is damaged (%s); it is put aside as %s", damage, aside.name)
        try:
            self._path.replace(aside)
        except OSError as error:
            # The next write takes its place.
            logger.error("the damaged journal stays where it is: %s", error)

    def write(self, record: Record) -> None:
        """Keep `record`; when this returns, a power cut cannot undo it."""
        if record.handled != self.record.handled:
            ratchet = _Ratchet(handled=record.handled)
            durable.replace(self._ratchet, msgspec.json.encode(ratchet), label="ratchet")
        durable.replace(self._path, msgspec.json.encode(record), label="journal")
        self.record = record


def highest_generation(handled: dict[str, int]) -> int:
    """The floor that a server restored from a backup continues above."""
    return max(handled.values(), default=0)
