"""How one simulated device carries out desired documents: documents and moments in, reports out.

The states and their order, the ratchet of generations and what supersedes what are those of the agent
(`core/plan.py`, `core/machine.py`); a test holds the two together. Only the work between two states is
replaced by waiting.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from edgeflow_agent.wire import documents, signing
from edgeflow_agent.wire.documents import Action, DesiredDeployment, DesiredState, Report, Runtime
from edgeflow_agent.wire.states import State
from edgeflow_mlflow.simulation.memory import Character, Last, Memory, Served, Task

# How the time of an install is divided.
_SHARES = {State.DOWNLOADING: 0.7, State.VERIFYING: 0.1, State.LOADING: 0.2}
_NEXT = {
    State.DOWNLOADING: State.VERIFYING,
    State.VERIFYING: State.LOADING,
    State.LOADING: State.TRIAL,
    State.TRIAL: State.DEPLOYED,
}
# How often a state that lasts is reported again, as the agent does it.
_REPEATS_S = {State.DOWNLOADING: 2.0, State.TRIAL: 60.0}
# What a simulated device is asked by its application, for trials that wait for requests.
_REQUESTS_PER_S = 10.0
_REMEMBERED_REFUSALS = 64
_NEVER = float("inf")


class Decision(enum.StrEnum):
    """What becomes of a document."""

    IGNORE_OLD_GENERATION = "old_generation"
    ALREADY_HANDLED = "already_handled"
    IN_PROGRESS = "in_progress"
    REJECT_EXPIRED = "expired"
    NOTHING_ASKED = "nothing_asked"
    ALREADY_SERVING = "already_serving"
    INSTALL = "install"
    HOLD = "hold"
    REMOVE = "remove"


_REFUSALS = frozenset({Decision.IGNORE_OLD_GENERATION, Decision.REJECT_EXPIRED})
_NO_CHANGE = frozenset({Decision.ALREADY_HANDLED, Decision.IN_PROGRESS})


def decide(desired: DesiredState, key: str, memory: Memory, now: datetime) -> Decision:
    """What to do about a document that `key` has signed."""
    task = memory.task
    if task is not None and key == task.key:
        if desired.generation == task.generation:
            return Decision.IN_PROGRESS
        if desired.generation < task.generation:
            return Decision.IGNORE_OLD_GENERATION
    handled = memory.handled.get(key, -1)
    if desired.generation <= handled:
        old = desired.generation < handled
        return Decision.IGNORE_OLD_GENERATION if old else Decision.ALREADY_HANDLED
    if signing.is_expired(desired, now):
        return Decision.REJECT_EXPIRED
    if not desired.deployments:
        return Decision.NOTHING_ASKED
    deployment = desired.deployments[0]
    if deployment.action is not Action.INSTALL:
        return Decision.HOLD if deployment.action is Action.HOLD else Decision.REMOVE
    served = memory.served
    same = served is not None and served.digest == documents.bundle_digest(deployment.files)
    if same and served is not None and _loads_alike(served.runtime, deployment.runtime):
        return Decision.ALREADY_SERVING
    return Decision.INSTALL


def _loads_alike(one: Runtime, other: Runtime) -> bool:
    return (one.providers, one.threads) == (other.providers, other.threads)


class Walk:
    """Changes `memory`; `tell` is given every report as it comes up."""

    def __init__(
        self, target: str, memory: Memory, character: Character, tell: Callable[[Report], object]
    ) -> None:
        self._target = target
        self._memory = memory
        self._character = character
        self._tell = tell
        self._refused: dict[tuple[str, str], None] = {}
        self.settled = False  # a deployment has ended since somebody looked

    def offer(self, desired: DesiredState, key: str, envelope_digest: str, now: float) -> Decision:
        """A verified document, however it came."""
        moment = datetime.fromtimestamp(now, UTC)
        decision = decide(desired, key, self._memory, moment)
        if decision in _REFUSALS:
            self._refuse_in_order(decision, desired, envelope_digest, now)
        elif decision not in _NO_CHANGE:
            if self._memory.task is not None:
                self._cancel(now)
                decision = decide(desired, key, self._memory, moment)  # what it serves may be another now
            if decision is Decision.NOTHING_ASKED:
                self._settle(key, desired.generation)
            else:
                self._begin(decision, desired.deployments[0], desired.generation, key, now)
        return decision

    def refuse(
        self,
        envelope_digest: str,
        *,
        reason: str,
        message: str,
        now: float,
        execution: str = "",
        generation: int = 0,
    ) -> None:
        """A document that is not acted on: reported once for each document and reason."""
        known = (envelope_digest, reason)
        if known in self._refused:
            return
        self._refused[known] = None
        if len(self._refused) > _REMEMBERED_REFUSALS:
            del self._refused[next(iter(self._refused))]
        self._report(
            State.REJECTED,
            now,
            execution=execution,
            generation=generation,
            reason=reason,
            message=message,
        )

    def _refuse_in_order(
        self, decision: Decision, desired: DesiredState, envelope_digest: str, now: float
    ) -> None:
        # As on the device: an old document does not tell what became of its execution.
        expired = decision is Decision.REJECT_EXPIRED and desired.deployments
        self.refuse(
            envelope_digest,
            reason=decision.value,
            message=f"generation {desired.generation} is {decision.value.replace('_', ' ')}",
            now=now,
            execution=desired.deployments[0].execution if expired else "",
            generation=desired.generation,
        )

    def due_at(self, *, online: bool) -> float:
        """When `tick` has something to do; infinity: not before something else happens."""
        task = self._memory.task
        if task is None or (task.state is State.DOWNLOADING and not online):
            return _NEVER
        waits = task.state is State.DOWNLOADING and self._character.download
        return min(_NEVER if waits else task.moves_at, task.said_at + _REPEATS_S.get(task.state, _NEVER))

    def tick(self, now: float, *, online: bool) -> None:
        """Time has passed."""
        while (task := self._memory.task) is not None and now >= self.due_at(online=online):
            waits = task.state is State.DOWNLOADING and self._character.download
            if now >= task.moves_at and not waits:
                self._move(task, now)
                continue
            task = msgspec.structs.replace(task, said_at=now)
            self._memory.task = task
            span = task.moves_at - task.began_at
            share = min((now - task.began_at) / span, 1.0) if span > 0 else 0.0
            self._step(task, now, progress=share)

    def to_fetch(self) -> DesiredDeployment | None:
        """The deployment whose files are wanted, where they are fetched for real."""
        task = self._memory.task
        wanted = self._character.download and task is not None and task.state is State.DOWNLOADING
        return task.deployment if wanted and task is not None else None

    def fetched(self, execution: str, reason: str, message: str, now: float) -> None:
        """All its files have come and are right; or, with a reason, never will be."""
        task = self._memory.task
        if task is None or task.deployment.execution != execution or task.state is not State.DOWNLOADING:
            return
        if reason:
            self._end(msgspec.structs.replace(task, reason=reason, message=message), State.FAILED, now)
        else:
            self._enter(task, State.VERIFYING, now)

    # One deployment.

    def _begin(
        self, decision: Decision, deployment: DesiredDeployment, generation: int, key: str, now: float
    ) -> None:
        memory = self._memory
        digest = documents.bundle_digest(deployment.files) if deployment.files else ""
        on_trial = deployment.trial.duration_s > 0 or deployment.trial.minimum_requests > 0
        task = Task(
            deployment=deployment,
            digest=digest,
            generation=generation,
            key=key,
            state=State.ACCEPTED,
            takes_s=self._character.takes_s(self._target, deployment.execution),
            # What it has served before it serves again: only a new model can be bad.
            fate=State.DEPLOYED
            if digest == memory.previous
            else self._character.fate(self._target, digest, on_trial=on_trial),
            before=memory.served,
            before_previous=memory.previous,
        )
        memory.task = task
        self._step(task, now)
        if decision is Decision.INSTALL:
            self._enter(task, State.DOWNLOADING, now)
            return
        if decision is Decision.ALREADY_SERVING:
            memory.served = _served(task)
        elif decision is Decision.REMOVE:
            memory.served, memory.previous = None, ""
        self._end(task, State.DEPLOYED, now)

    def _move(self, task: Task, now: float) -> None:
        """The work of a state is done."""
        if task.state is State.LOADING and task.fate is State.FAILED:
            text = "this simulated device cannot load this model"
            self._end(msgspec.structs.replace(task, reason="model", message=text), State.FAILED, now)
        elif task.state is State.TRIAL and task.fate is State.ROLLED_BACK:
            text = "this simulated device gets errors from this model"
            task = msgspec.structs.replace(task, reason="trial_errors", message=text)
            self._end(task, State.ROLLED_BACK, now)
        elif task.state is State.TRIAL:
            self._end(task, State.DEPLOYED, now)
        else:
            self._enter(task, _NEXT[task.state], now)

    def _enter(self, task: Task, state: State, now: float) -> None:
        if state is State.TRIAL:
            self._memory.served = _served(task)
            self._memory.previous = task.before.digest if task.before is not None else ""
            trial = task.deployment.trial
            lasts = max(trial.duration_s, trial.minimum_requests / _REQUESTS_PER_S)
            if task.fate is State.ROLLED_BACK:
                lasts /= 2
        else:
            lasts = task.takes_s * _SHARES[state]
        task = msgspec.structs.replace(task, state=state, began_at=now, said_at=now, moves_at=now + lasts)
        self._memory.task = task
        if state is not State.TRIAL or lasts > 0:
            self._step(task, now)

    def _cancel(self, now: float) -> None:
        task = self._memory.task
        assert task is not None
        text = "a newer document took its place"
        self._end(msgspec.structs.replace(task, reason="superseded", message=text), State.CANCELLED, now)

    def _end(self, task: Task, state: State, now: float) -> None:
        if task.state is State.TRIAL and state is not State.DEPLOYED:
            self._memory.served, self._memory.previous = task.before, task.before_previous
        elif state is State.DEPLOYED and self._memory.previous in task.deployment.recalled:
            self._memory.previous = ""
        self._memory.task = None
        self._step(msgspec.structs.replace(task, state=state), now)
        self._settle(task.key, task.generation)

    def _settle(self, key: str, generation: int) -> None:
        handled = self._memory.handled
        self._memory.handled = {**handled, key: max(generation, handled.get(key, -1))}
        self.settled = True

    # Reports.

    def _step(self, task: Task, now: float, *, progress: float | None = None) -> None:
        self._memory.last = Last(
            execution=task.deployment.execution, state=task.state.value, reason=task.reason
        )
        self._report(
            task.state,
            now,
            execution=task.deployment.execution,
            generation=task.generation,
            reason=task.reason,
            message=task.message,
            progress=progress,
            digest=task.digest,
        )

    def _report(
        self,
        state: State,
        now: float,
        *,
        execution: str,
        generation: int,
        reason: str = "",
        message: str = "",
        progress: float | None = None,
        digest: str = "",
    ) -> None:
        report = Report(
            boot="",
            seq=0,
            execution=execution,
            generation=generation,
            state=state,
            reason=reason,
            message=message,
            progress=progress,
            digest=digest,
            at=datetime.fromtimestamp(now, UTC),
        )
        self._tell(report)


def _served(task: Task) -> Served:
    deployment = task.deployment
    return Served(
        digest=task.digest,
        model=deployment.model or documents.ModelRef(name="", version=""),
        deployment=deployment.id,
        execution=deployment.execution,
        runtime=deployment.runtime,
    )
