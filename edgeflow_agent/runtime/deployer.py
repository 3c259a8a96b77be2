"""The thread that carries out desired documents, one after the other: decide, save, report, act."""

from __future__ import annotations

import collections
import contextlib
import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.core import backoff, machine, plan, recovery
from edgeflow_agent.core.machine import Event, Step, Work
from edgeflow_agent.inference.slot import Serving
from edgeflow_agent.runtime.executor import Executor
from edgeflow_agent.runtime.interruption import CancelledError, Interruption, StoppingError
from edgeflow_agent.runtime.reporting import Reporter
from edgeflow_agent.store import crashpoints
from edgeflow_agent.store.journal import Entry, Journal
from edgeflow_agent.wire.documents import DesiredState, Runtime
from edgeflow_agent.wire.states import State, is_terminal

logger = logging.getLogger(__name__)

_MAX_OFFERS = 32
# Without these something else would serve than what is reported.
_MUST_HAPPEN = frozenset({machine.Effect.REVERT, machine.Effect.ADOPT, machine.Effect.UNLOAD})


class Offer(NamedTuple):
    """A verified document: what it says, who signed it, which bytes it was."""

    desired: DesiredState
    key: str
    envelope_digest: str


class Deployer:
    """Owns the journal. `offer` may be called from any thread; everything else happens in its own."""

    def __init__(
        self,
        journal: Journal,
        executor: Executor,
        reporter: Reporter,
        serving: Callable[[], Serving | None],
        fallen: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._journal = journal
        self._executor = executor
        self._reporter = reporter
        self._serving = serving
        self._fallen = fallen
        self.on_settled: Callable[[], None] = _nothing  # a deployment has ended
        self.on_expired: Callable[[], None] = _nothing  # a newer copy of the document is wanted
        self._offers: collections.deque[Offer] = collections.deque(maxlen=_MAX_OFFERS)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._prepared: tuple[Entry, Step] | None = None
        self._last_trouble = ""
        self._thread = threading.Thread(target=self._run, name="edgeflow-deployer", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether a deployment is in work."""
        return self.active is not None

    @property
    def active(self) -> Entry | None:
        """The deployment in work."""
        return self._journal.record.active

    @property
    def handled(self) -> dict[str, int]:
        """The ratchet."""
        return self._journal.record.handled

    def offer(self, offer: Offer) -> None:
        """Hand over a verified document. One that says the same as a waiting one takes its place."""
        with self._changed:
            same = (offer.key, offer.desired.generation)
            kept = [item for item in self._offers if (item.key, item.desired.generation) != same]
            self._offers = collections.deque([*kept, offer], maxlen=_MAX_OFFERS)
            self._changed.notify_all()

    def progressed(self, entry: Entry, share: float | None) -> None:
        """What is in work has come so far. Called in the deployer's own thread, by what it carries out."""
        if entry.state in (State.TRIAL, State.LOADING):
            try:
                self._save(entry)
            except OSError as error:
                # Only how long it has lasted would be forgotten: no reason to give the model up.
                logger.error("how far the deployment has come could not be kept: %s", error)
        self._reporter.progress(entry, share)

    def prepare(self) -> None:
        """Decide about a deployment that a crash or stop left behind, before any model is loaded: the
        model on trial may be what kills the agent."""
        entry = self._journal.record.active
        if entry is None:
            return
        try:
            self._prepared = self._take_up(entry, died=not entry.stopped_cleanly)
        except OSError as error:
            # A full disk must not keep a device from serving what it has. The thread tries again.
            self._complain(error)

    def _take_up(self, entry: Entry, *, died: bool) -> tuple[Entry, Step]:
        tries = entry.tries + died
        resumption = recovery.resume(
            entry.state, entry.work, tries=tries, saves=entry.saves, activated=entry.activated
        )
        logger.info(
            "deployment %s is taken up again in state %s: %s",
            entry.deployment.execution,
            entry.state.value,
            resumption.why.value,
        )
        entry = msgspec.structs.replace(
            entry,
            tries=tries,
            attempt=entry.attempt + died,
            stopped_cleanly=False,
            reason=resumption.reason or entry.reason,
            message=resumption.message or entry.message,
        )
        self._save(entry)
        if machine.Effect.REVERT in resumption.step.effects:
            self._executor.restore_pointers(entry)
        return entry, resumption.step

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop at the next safe place; may be called twice."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # The thread.

    def _run(self) -> None:
        failures = 0
        with contextlib.suppress(StoppingError):
            while not self._stopping.is_set():
                failures = 0 if self._turn_safely() else failures + 1
                if failures:
                    # Backing off is no secret of cryptography.
                    self._stopping.wait(backoff.delay(failures, random.random()))  # noqa: S311
        self._note_stop()

    def _turn_safely(self) -> bool:
        """Whether the turn went well; whatever it was, this thread is there for the next one."""
        try:
            self._turn()
        except StoppingError:
            raise
        except OSError as error:
            self._complain(error)
            return False
        except Exception:
            logger.exception("a deployment cannot go on")
            return False
        self._last_trouble = ""
        return True

    def _turn(self) -> None:
        """Go on with what is in work, else take the next document."""
        active = self._journal.record.active
        if active is not None:
            # After a start as `prepare` has decided; later, when a write has failed, as the journal says.
            prepared, self._prepared = self._prepared, None
            entry, step = prepared or self._take_up(active, died=False)
            self._drive(entry, step)
            return
        with self._changed:
            while not self._offers and not self._stopping.is_set():
                self._changed.wait(5.0)
            offer = self._offers.popleft() if self._offers else None
        if offer is None:
            return
        try:
            self._handle(offer)
        except OSError:
            # The server takes the document for delivered. A newer one takes its place.
            with self._changed:
                if not self._offers:
                    self._offers.append(offer)
            raise

    def _note_stop(self) -> None:
        active = self._journal.record.active
        if active is not None:
            try:
                self._save(msgspec.structs.replace(active, stopped_cleanly=True))
            except OSError as error:
                self._complain(error)

    def _complain(self, error: OSError) -> None:
        """Once per cause: a disk may be full for days."""
        trouble = error.strerror or str(error)
        if trouble == self._last_trouble:
            return
        self._last_trouble = trouble
        active = self._journal.record.active
        logger.error(
            "%s cannot go on: the state folder cannot be written (%s). Make room on the disk, or look "
            "whether it is damaged or read-only; this is tried again, and what serves goes on serving",
            f"deployment {active.deployment.execution}" if active is not None else "a document",
            trouble,
        )

    def _actual(self) -> plan.Actual:
        record, serving = self._journal.record, self._serving()
        active = record.active
        return plan.Actual(
            handled=record.handled,
            active_key=active.key if active else "",
            active_generation=active.generation if active else -1,
            digest=serving.digest if serving else "",
            runtime=serving.runtime if serving else Runtime(),
            fallen=self._fallen(),
        )

    def _decide(self, offer: Offer) -> plan.Decision:
        return plan.decide(offer.desired, offer.key, self._actual(), datetime.now(UTC))

    def _superseded(self) -> bool:
        with self._changed:
            offers = list(self._offers)
        return any(plan.supersedes(self._decide(offer)) for offer in offers)

    def _handle(self, offer: Offer) -> None:
        decision = self._decide(offer)
        desired = offer.desired
        logger.log(
            logging.DEBUG if decision is plan.Decision.ALREADY_HANDLED else logging.INFO,
            "generation %d: %s",
            desired.generation,
            decision.value,
        )
        if decision in plan.REFUSALS:
            self._reporter.refused_by_plan(offer.envelope_digest, desired, decision)
        if decision is plan.Decision.REJECT_EXPIRED:
            self.on_expired()
        elif decision in (plan.Decision.NOTHING_ASKED, plan.Decision.REJECT_CRASH_LOOP):
            self._settle(offer.key, desired.generation)
        elif decision in plan.WORK:
            self._begin(offer, plan.WORK[decision])

    def _begin(self, offer: Offer, work: Work) -> None:
        deployment = offer.desired.deployments[0]
        generation = offer.desired.generation
        if work is Work.INSTALL:
            try:
                self._executor.check_room(deployment)
            except errors.StateError as error:
                self._reporter.refused(
                    offer.envelope_digest,
                    reason=error.reason,
                    message=str(error),
                    execution=deployment.execution,
                    generation=generation,
                )
                self._settle(offer.key, generation)
                return
        entry = Entry(
            deployment=deployment,
            generation=generation,
            key=offer.key,
            work=work,
            state=State.ACCEPTED,
        )
        self._save(entry)
        crashpoints.reach("state.accepted")
        self._reporter.step(entry)
        event = machine.STARTS[work]
        if work is Work.ADOPT:
            try:
                self._executor.check_adoption(deployment)
            except errors.ModelError as error:
                entry = msgspec.structs.replace(entry, reason=error.reason, message=str(error))
                event = Event.FAILED
        self._drive(entry, machine.advance(entry.state, event))

    def _drive(self, entry: Entry, step: Step) -> None:
        """Save, report, act, until the deployment has ended."""
        while True:
            moved = step.state is not entry.state
            entry = msgspec.structs.replace(
                entry, state=step.state, saves=entry.saves + 1, tries=0 if moved else entry.tries
            )
            if step.state is State.TRIAL and not entry.activated:
                current, previous = self._executor.pointers()
                entry = msgspec.structs.replace(
                    entry, activated=True, before_current=current, before_previous=previous
                )
            self._save(entry)
            crashpoints.reach(f"state.{step.state.value}")
            if is_terminal(step.state):
                self._end(entry, step)
                return
            if step.state is not State.TRIAL:
                self._reporter.step(entry)
            entry, event = self._carry_out(entry, step)
            if entry.activated:
                entry = self._executor.with_figures(entry)
            step = machine.advance(entry.state, event)

    def _carry_out(self, entry: Entry, step: Step) -> tuple[Entry, Event]:
        interruption = Interruption(stopping=self._stopping, cancelled=self._superseded)
        try:
            for effect in step.effects:
                remark = self._executor.carry_out(effect, entry, interruption)
                if remark:
                    entry = msgspec.structs.replace(entry, message=remark)
                if effect is machine.Effect.ACTIVATE and _has_trial(entry):
                    # Only now does the model answer: whoever hears "trial" may rely on that.
                    self._reporter.step(self._executor.with_figures(entry))
        except StoppingError:
            raise
        except CancelledError:
            message = "a newer document took its place"
            return msgspec.structs.replace(entry, reason="superseded", message=message), Event.CANCELLED
        except errors.EdgeflowError as error:
            logger.warning("deployment %s: %s", entry.deployment.execution, error)
            return msgspec.structs.replace(entry, reason=error.reason, message=str(error)), Event.FAILED
        except Exception as error:
            logger.exception("deployment %s failed in an unexpected way", entry.deployment.execution)
            reason = "disk" if isinstance(error, OSError) else "internal"
            message = f"{type(error).__name__}: {error}"
            return msgspec.structs.replace(entry, reason=reason, message=message), Event.FAILED
        return entry, Event.DONE

    def _end(self, entry: Entry, step: Step) -> None:
        # An end is carried out whatever comes: a stop waits for it, a newer document comes after it.
        interruption = Interruption(stopping=threading.Event(), cancelled=lambda: False)
        for effect in step.effects:
            try:
                self._executor.carry_out(effect, entry, interruption)
            except Exception as error:
                if effect in _MUST_HAPPEN and isinstance(error, OSError):
                    raise  # it is tried again, before anybody hears of the end
                logger.exception("%s of deployment %s failed", effect.value, entry.deployment.execution)
        if step.state is State.DEPLOYED and entry.deployment.recalled:
            try:
                self._executor.forget_recalled(entry.deployment)
            except (errors.EdgeflowError, OSError) as error:
                logger.error("what was recalled is still kept to fall back on: %s", error)
        self._reporter.step(entry)
        logger.info(
            "deployment %s (generation %d): %s %s",
            entry.deployment.execution,
            entry.generation,
            entry.state.value,
            entry.message,
        )
        self._settle(entry.key, entry.generation)

    def _settle(self, key: str, generation: int) -> None:
        record = self._journal.record
        crashpoints.reach("settle.before")
        self._journal.write(
            msgspec.structs.replace(
                record, handled=plan.advanced(record.handled, key, generation), active=None
            )
        )
        crashpoints.reach("settle.after")
        self.on_settled()

    def _save(self, entry: Entry) -> None:
        self._journal.write(msgspec.structs.replace(self._journal.record, active=entry))


def _nothing() -> None:
    """Nobody listens."""


def _has_trial(entry: Entry) -> bool:
    trial = entry.deployment.trial
    return trial.duration_s > 0 or trial.minimum_requests > 0
