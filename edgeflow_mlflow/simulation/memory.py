"""What one simulated device knows and keeps: who it is, what it serves, what it is doing."""

from __future__ import annotations

import msgspec

from edgeflow_agent.wire.documents import DesiredDeployment, ModelRef, Report, Runtime
from edgeflow_agent.wire.states import State
from edgeflow_mlflow.simulation import chance


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What enrolment gave it. `trust` is the newest trust document as the server signed it."""

    target: str
    fleet: str
    credential: str
    root_key: str
    trust: str
    mqtt: str = ""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A model that it would serve if it were real."""

    digest: str
    model: ModelRef
    deployment: str
    execution: str
    runtime: Runtime


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment in work: how far it is, when the next step is due, and how it will end."""

    deployment: DesiredDeployment
    digest: str
    generation: int
    key: str
    state: State
    takes_s: float
    fate: State
    began_at: float = 0.0  # in this state
    moves_at: float = 0.0
    said_at: float = 0.0
    reason: str = ""
    message: str = ""
    before: Served | None = None
    before_previous: str = ""


class Last(msgspec.Struct, frozen=True, kw_only=True):
    """Where its newest deployment stands, for whoever watches."""

    execution: str = ""
    state: str = ""
    reason: str = ""


class Memory(msgspec.Struct, kw_only=True):
    """What it keeps over a restart. `handled` is the ratchet: the highest generation handled by each key."""

    handled: dict[str, int] = {}
    served: Served | None = None
    previous: str = ""  # the digest before
    task: Task | None = None
    reports: list[Report] = []
    dropped: int = 0
    last: Last = Last()

    @property
    def generation(self) -> int:
        """The highest generation that it has handled for good."""
        return max(self.handled.values(), default=0)


class Character(msgspec.Struct, frozen=True, kw_only=True):
    """How the devices of a simulation behave. Shares are from 0 to 1, times in seconds."""

    seed: int = 1
    bad: float = 0.0
    offline: float = 0.0
    fastest_s: float = 0.5
    slowest_s: float = 3.0
    http: bool = False  # never MQTT
    download: bool = False  # fetch files for real
    resend_s: float = 10.0

    def takes_s(self, target: str, execution: str) -> float:
        """How long an install takes this device, trial apart."""
        part = chance.draw(self.seed, "takes", target, execution)
        return chance.between(self.fastest_s, self.slowest_s, part)

    def fate(self, target: str, digest: str, *, on_trial: bool) -> State:
        """How this device gets on with this model."""
        if not chance.is_bad(self.seed, target, digest, self.bad):
            return State.DEPLOYED
        late = on_trial and chance.draw(self.seed, "how", target, digest) < 0.5
        return State.ROLLED_BACK if late else State.FAILED

    def is_away(self, target: str, age_s: float) -> bool:
        """Whether it is offline when the simulation is so old."""
        return chance.is_away(self.seed, target, age_s, self.offline)
