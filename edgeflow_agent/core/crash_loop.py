"""Whether the model that serves keeps killing the agent: the lives of the process go in, the verdict out.

Only a death that leaves the machine running counts. The time between two starts of the machine is not known
to a device without a clock of its own, and a switch that is thrown three times says nothing about a model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

# So many deaths within so long a time are the model's.
DEATHS = 3
WITHIN_S = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """When, by the clock of one start of the machine: `machine` tells that start from every other."""

    machine: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Life:
    """One life of the agent's process. `stopped` says that it was asked to end; `release` is the committed
    release that served when it died (empty: none, or another model may be to blame)."""

    started: Moment
    stopped: bool = False
    release: str = ""


def begun(lives: Sequence[Life], now: Moment, release: str) -> tuple[Life, ...]:
    """The lives with the one that begins now. The last one, if it was never told to stop, died while
    `release` served. Only as many are kept as can matter."""
    known = list(lives)
    if known and not known[-1].stopped:
        known[-1] = dataclasses.replace(known[-1], release=release)
    return (*known[-DEATHS:], Life(started=now))


def ended(lives: Sequence[Life]) -> tuple[Life, ...]:
    """The lives after the present one was asked to stop."""
    return (*lives[:-1], dataclasses.replace(lives[-1], stopped=True)) if lives else ()


def is_looping(lives: Sequence[Life], now: Moment, release: str) -> bool:
    """Whether `release`, which serves now, has killed the agent too often. A death is found out at the
    start that follows it; the last of the lives is the present one."""
    deaths = [
        found.started
        for life, found in itertools.pairwise(lives)
        if not life.stopped and life.release == release and life.started.machine == found.started.machine
    ]
    recent = [
        death
        for death in deaths
        if death.machine == now.machine and 0 <= now.seconds - death.seconds <= WITHIN_S
    ]
    return bool(release) and len(recent) >= DEATHS
