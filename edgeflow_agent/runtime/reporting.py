"""Turning what happens on the device into reports, each kept in the spool before anybody hears of it."""

from __future__ import annotations

import collections
import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from edgeflow_agent.core import plan
from edgeflow_agent.store.journal import Entry
from edgeflow_agent.store.lives import Fall
from edgeflow_agent.store.spool import Spool
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import DesiredState, Report, TrialFigures
from edgeflow_agent.wire.states import State, is_terminal

logger = logging.getLogger(__name__)

_REMEMBERED_REFUSALS = 256
# A device on trial may be offline for days.
_ENOUGH_WAITING = 100


class Reporter:
    """Where every report begins. Thread-safe."""

    def __init__(self, spool: Spool[Report], on_new: Callable[[], None]) -> None:
        self._spool = spool
        self._on_new = on_new
        self._lock = threading.Lock()
        self._refused: collections.OrderedDict[tuple[str, str], None] = collections.OrderedDict()

    def step(self, entry: Entry, *, progress: float | None = None) -> None:
        """Where a deployment stands."""
        on_trial = entry.state is State.TRIAL or is_terminal(entry.state)
        self._add(
            execution=entry.deployment.execution,
            generation=entry.generation,
            state=entry.state,
            attempt=entry.attempt,
            reason=entry.reason,
            message=entry.message,
            progress=progress,
            digest=documents.bundle_digest(entry.deployment.files) if entry.deployment.files else "",
            trial=entry.figures if on_trial else None,
        )

    def fell_back(self, fall: Fall) -> None:
        """A deployment that had ended well was given up: the model before serves again."""
        self._add(
            execution=fall.deployment.execution,
            generation=fall.generation,
            state=State.ROLLED_BACK,
            reason="crash_loop",
            message=fall.message,
            digest=fall.digest,
        )

    def progress(self, entry: Entry, share: float | None) -> None:
        """How far a state has come (None: it waits). Left out while many reports wait: it is news, and must
        not push what is history out of the spool."""
        if self._spool.pending_count < _ENOUGH_WAITING:
            self.step(entry, progress=share)

    def refused_by_plan(self, envelope_digest: str, desired: DesiredState, decision: plan.Decision) -> None:
        """A verified document that asks for what this device will not do."""
        execution = desired.deployments[0].execution if desired.deployments else ""
        if decision is plan.Decision.IGNORE_OLD_GENERATION:
            # Without the execution's id: whatever became of that execution, this document does not tell.
            execution = ""
            message = (
                f"generation {desired.generation} is older than what this device has handled; "
                "a replayed document, or a server restored from a backup"
            )
        elif decision is plan.Decision.REJECT_EXPIRED:
            message = (
                f"the document expired at {desired.expires_at.isoformat()}; an old copy, or the "
                "clock of this device is wrong"
            )
        else:
            message = (
                "this model was given up at this generation, because the agent kept dying while it served; "
                "update the deployment to try it again"
            )
        self.refused(
            envelope_digest,
            reason=decision.value,
            message=message,
            execution=execution,
            generation=desired.generation,
        )

    def refused(
        self, envelope_digest: str, *, reason: str, message: str, execution: str = "", generation: int = 0
    ) -> None:
        """A document that is not acted on: reported once for each document and reason."""
        with self._lock:
            known = (envelope_digest, reason)
            if known in self._refused:
                return
            self._refused[known] = None
            if len(self._refused) > _REMEMBERED_REFUSALS:
                self._refused.popitem(last=False)
        logger.warning("refused a desired document (%s): %s", reason, message)
        self._add(
            execution=execution,
            generation=generation,
            state=State.REJECTED,
            reason=reason,
            message=message,
        )

    def _add(
        self,
        *,
        execution: str,
        generation: int,
        state: State,
        attempt: int = 1,
        reason: str = "",
        message: str = "",
        progress: float | None = None,
        digest: str = "",
        trial: TrialFigures | None = None,
    ) -> None:
        report = Report(
            boot="",
            seq=0,
            execution=execution,
            generation=generation,
            state=state,
            attempt=attempt,
            reason=reason[:256],
            message=message[:4096],
            progress=progress,
            digest=digest,
            at=datetime.now(UTC),
            trial=trial,
        )
        try:
            self._spool.add(report)
        except sqlite3.Error as error:
            # A full disk must not stop a model from serving.
            logger.error("a report is not on disk yet, and is tried again: %s", error)
        self._on_new()


def envelope_digest(envelope: bytes) -> str:
    """What tells one document from another."""
    return hashlib.sha256(envelope).hexdigest()
