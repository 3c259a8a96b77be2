"""Whether a wave went well enough for the next: facts in, readings out. A gate is one function."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """What a gate says."""

    OK = "pass"
    WAIT = "wait"  # too little is known yet
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a rollout puts up with. Rates from 0 to 1; None: not looked at."""

    max_failure_rate: float = 0.2
    minimum_executed: int = 5
    max_error_rate: float | None = None
    max_latency_ratio: float | None = None
    max_drift_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a wave: executions that have ended on devices since it began, how many of them
    failed, and what their trials saw. `is_over` says that nobody in it is waited for any more.

    `latency_ratio` is the mean run of the new model over that of the model before, weighted by requests;
    None where no trial compared them. `accepted` are ends that somebody has looked at who then resumed: they
    say nothing any more, and nobody waits for them.

    `watched` are targets that serve the new model, `judged` those of them whose telemetry was judged often
    enough for an alarm, `drifted` those with one that is new; `is_judged` says that nobody waits for
    more of it.
    """

    targets: int = 0
    accepted: int = 0
    executed: int = 0
    failed: int = 0
    trial_requests: int = 0
    trial_errors: int = 0
    latency_ratio: float | None = None
    is_over: bool = False
    watched: int = 0
    judged: int = 0
    drifted: int = 0
    is_judged: bool = False


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one gate found; stored and shown. `value` is None where there was nothing to measure."""

    gate: str
    verdict: Verdict
    value: float | None
    limit: float
    text: str


Gate = Callable[[Limits, Facts], Reading | None]


def failure_rate(limits: Limits, facts: Facts) -> Reading:
    """Failed over executed: those who are offline count for nothing, in either direction."""
    limit = limits.max_failure_rate
    minimum = max(1, min(limits.minimum_executed, facts.targets))

    def reading(verdict: Verdict, text: str, value: float | None = None) -> Reading:
        return Reading(gate="failure_rate", verdict=verdict, value=value, limit=limit, text=text)

    if facts.executed == 0:
        if facts.targets == 0:
            return reading(Verdict.OK, "nobody is in this wave any more")
        if facts.accepted and facts.is_over:
            return reading(Verdict.OK, f"{facts.accepted} ends were accepted by who resumed")
        return reading(Verdict.WAIT, "no device of this wave has come to an end yet")
    rate = facts.failed / facts.executed
    text = f"{facts.failed} of {facts.executed} failed"
    if rate > limit and (facts.executed >= minimum or facts.is_over):
        return reading(Verdict.FAIL, f"{text}, more than {limit * 100:g}%", rate)
    if facts.executed < minimum and not facts.is_over:
        return reading(Verdict.WAIT, f"{text}; {minimum} ends are needed for a verdict", rate)
    return reading(Verdict.OK, text, rate)


def error_rate(limits: Limits, facts: Facts) -> Reading | None:
    """Errors among the requests of all trials of the wave."""
    limit = limits.max_error_rate
    if limit is None:
        return None
    name = "error_rate"
    if facts.trial_requests == 0:
        if facts.accepted and facts.is_over:
            return None
        text = "no trial of this wave has seen a request"
        verdict = Verdict.WAIT if facts.targets else Verdict.OK
        return Reading(gate=name, verdict=verdict, value=None, limit=limit, text=text)
    rate = facts.trial_errors / facts.trial_requests
    text = f"{facts.trial_errors} of {facts.trial_requests} requests failed on trial"
    if rate > limit:
        text = f"{text}, more than {limit * 100:g}%"
        return Reading(gate=name, verdict=Verdict.FAIL, value=rate, limit=limit, text=text)
    return Reading(gate=name, verdict=Verdict.OK, value=rate, limit=limit, text=text)


def latency(limits: Limits, facts: Facts) -> Reading | None:
    """Time of a run against the version before. Where there was none there is nothing to compare."""
    limit = limits.max_latency_ratio
    if limit is None:
        return None
    ratio = facts.latency_ratio
    if ratio is None:
        text = "no trial of this wave could compare with a version before"
        return Reading(gate="latency", verdict=Verdict.OK, value=None, limit=limit, text=text)
    text = f"a run takes {ratio:.2f} times as long as with the version before"
    if ratio > limit:
        text = f"{text}, more than {limit:g}"
        return Reading(gate="latency", verdict=Verdict.FAIL, value=ratio, limit=limit, text=text)
    return Reading(gate="latency", verdict=Verdict.OK, value=ratio, limit=limit, text=text)


def drift(limits: Limits, facts: Facts) -> Reading | None:
    """Targets whose inputs or outputs have drifted from what the new model was trained on, and had not with
    the version before."""
    limit = limits.max_drift_rate
    if limit is None:
        return None

    def reading(verdict: Verdict, text: str, value: float | None = None) -> Reading:
        return Reading(gate="drift", verdict=verdict, value=value, limit=limit, text=text)

    if facts.judged == 0:
        if facts.watched == 0:
            return reading(Verdict.OK, "no device of this wave serves the new model")
        text = f"none of {facts.watched} devices has sent enough telemetry for a verdict on drift"
        return reading(Verdict.OK if facts.is_judged else Verdict.WAIT, text)
    rate = facts.drifted / facts.judged
    text = f"{facts.drifted} of {facts.judged} judged devices have drifted"
    # Half of them is enough to go on by: some robots stand still all day.
    minimum = max(-(-facts.watched // 2), min(limits.minimum_executed, facts.watched))
    if facts.judged < minimum and not facts.is_judged:
        return reading(Verdict.WAIT, f"{text}; {minimum} verdicts are needed", rate)
    if rate > limit:
        return reading(Verdict.FAIL, f"{text}, more than {limit * 100:g}%", rate)
    return reading(Verdict.OK, text, rate)


GATES: tuple[Gate, ...] = (failure_rate, error_rate, latency, drift)


def read(limits: Limits, facts: Facts) -> tuple[Reading, ...]:
    """What every gate says that is set up."""
    return tuple(reading for gate in GATES if (reading := gate(limits, facts)) is not None)


def worst(readings: Sequence[Reading]) -> Verdict:
    """One failing gate is enough, and one that waits holds up."""
    verdicts = {reading.verdict for reading in readings}
    for verdict in (Verdict.FAIL, Verdict.WAIT):
        if verdict in verdicts:
            return verdict
    return Verdict.OK
