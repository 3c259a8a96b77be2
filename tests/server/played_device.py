"""A device without files and threads: the agent's own rules over what would survive a power cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime

from edgeflow_agent.core import machine, plan, recovery
from edgeflow_agent.core.machine import Effect, Event, Work
from edgeflow_agent.core.plan import Decision
from edgeflow_agent.wire import documents, signing
from edgeflow_agent.wire.documents import DesiredState, Presence, PresenceKind, Report, Stored
from edgeflow_agent.wire.states import State


@dataclasses.dataclass
class Active:
    """The deployment in work, as the journal keeps it."""

    desired: DesiredState
    key: str
    work: Work
    state: State
    tries: int = 1
    saves: int = 1
    activated: bool = False

    @property
    def digest(self) -> str:
        return documents.bundle_digest(self.desired.deployments[0].files)


class PlayedDevice:
    """What it is told comes in by `receive`; what it wants to say stands in `spool` until it is stored."""

    def __init__(self, name: str, fleet: str, keys: Mapping[str, bytes]) -> None:
        self.name = name
        self._fleet = fleet
        self._keys = keys
        # What a power cut leaves.
        self.handled: dict[str, int] = {}
        self.active: Active | None = None
        self.current = ""  # digest of the release that `current` names
        self.previous = ""
        self.committed = ""
        self.execution = ""
        self.spool: list[Report] = []
        self._boot = 1
        self._seq = 0
        # What it does not.
        self.serving = ""
        self.ever_served = False

    # ---- the world

    def receive(self, envelope: bytes, now: datetime) -> None:
        desired, key = signing.verify_desired(envelope, self._keys, fleet=self._fleet, target=self.name)
        active = self.active
        decision = plan.decide(
            desired,
            key,
            plan.Actual(
                handled=self.handled,
                active_key=active.key if active else "",
                active_generation=active.desired.generation if active else -1,
                digest=self.committed,
            ),
            now,
        )
        if decision in plan.REFUSALS:
            reason = decision.value
            self._say(desired, State.REJECTED, reason=reason)
            return
        if not plan.supersedes(decision):
            return
        if active is not None:
            self._enter(active, machine.advance(active.state, Event.CANCELLED))
            self._settle(active)
        if decision is Decision.NOTHING_ASKED:
            return
        work = plan.WORK[decision]
        self.active = Active(desired=desired, key=key, work=work, state=State.ACCEPTED)
        self._say(desired, State.ACCEPTED)

    def step(self, *, well: bool) -> None:
        """Carry the deployment in work one step further."""
        active = self.active
        if active is None:
            return
        if active.state is State.ACCEPTED:
            event = machine.STARTS[active.work]
        else:
            event = Event.DONE if well else Event.FAILED
        self._enter(active, machine.advance(active.state, event))

    def crash(self) -> None:
        """Power is cut, and comes back."""
        self._boot += 1
        self._seq = 0
        self.serving = self.current
        active = self.active
        if active is None:
            return
        active.tries += 1
        resumed = recovery.resume(
            active.state, active.work, tries=active.tries, saves=active.saves, activated=active.activated
        )
        self._enter(active, resumed.step, reason=resumed.reason)

    def stored(self, message: Stored) -> None:
        gone = set(message.seqs)
        self.spool = [item for item in self.spool if item.boot != message.boot or item.seq not in gone]

    def presence(self, kind: PresenceKind) -> Presence:
        return Presence(
            kind=kind,
            boot=f"{self.name}-{self._boot}",
            generation=max(self.handled.values(), default=0),
            execution=self.execution,
            digest=self.serving,
            previous_digest=self.previous,
            serving=bool(self.serving),
        )

    # ---- within

    def _enter(self, active: Active, step: machine.Step, reason: str = "") -> None:
        if step.state is not active.state:
            active.tries = 1
        active.state, active.saves = step.state, active.saves + 1
        for effect in step.effects:
            self._do(effect, active)
        failed = step.state in (State.FAILED, State.ROLLED_BACK)
        self._say(active.desired, step.state, reason=reason or ("played" if failed else ""))
        if step.state in (State.DEPLOYED, State.FAILED, State.ROLLED_BACK, State.CANCELLED):
            self._settle(active)

    def _do(self, effect: Effect, active: Active) -> None:
        match effect:
            case Effect.ACTIVATE:
                if self.current != active.digest or not active.activated:
                    self.previous, self.current = self.current, active.digest
                active.activated = True
                self.serving = self.current
                self.ever_served = True
            case Effect.COMMIT:
                self.committed = self.current
                self.execution = active.desired.deployments[0].execution
            case Effect.REVERT:
                if active.activated:
                    self.current, self.previous = self.previous, ""
                self.serving = self.current
            case Effect.ADOPT:
                self.execution = active.desired.deployments[0].execution
            case Effect.UNLOAD:
                self.current = self.previous = self.committed = self.serving = self.execution = ""

    def _settle(self, active: Active) -> None:
        self.handled = plan.advanced(self.handled, active.key, active.desired.generation)
        self.active = None

    def _say(self, desired: DesiredState, state: State, reason: str = "") -> None:
        self._seq += 1
        self.spool.append(
            Report(
                boot=f"{self.name}-{self._boot}",
                seq=self._seq,
                execution=desired.deployments[0].execution if desired.deployments else "",
                generation=desired.generation,
                state=state,
                reason=reason,
            )
        )
