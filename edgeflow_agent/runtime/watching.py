"""Watching a model on trial until its time is over or something speaks against it."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.core import trial
from edgeflow_agent.inference.slot import Slot
from edgeflow_agent.runtime.interruption import Interruption
from edgeflow_agent.store.journal import Entry
from edgeflow_agent.wire.documents import Trial, TrialFigures

_LOOK_EVERY_S = 0.05
# A silent device is taken for lost: a trial says this often that it goes on.
_PROGRESS_EVERY_S = 60.0


def watch(
    entry: Entry, slot: Slot, interruption: Interruption, on_progress: Callable[[Entry, float], None]
) -> str:
    """Return when the trial ends well, with a remark for the report or none; raise ModelError when it ends
    badly. `on_progress` is given the entry with what was seen and the time that it has been watched."""
    serving = slot.current
    assert serving is not None
    # What the outputs hold is looked at for as long as somebody judges it, and no longer.
    serving.stats.on_trial = True
    try:
        return _watch(entry, slot, interruption, on_progress)
    finally:
        serving.stats.on_trial = False


def _watch(
    entry: Entry, slot: Slot, interruption: Interruption, on_progress: Callable[[Entry, float], None]
) -> str:
    wanted = entry.deployment.trial
    begin = said = time.monotonic()
    while True:
        now = time.monotonic()
        counted = figures(slot)
        seen = trial.Seen(
            lasted_s=now - begin,
            watched_s=entry.watched_s + now - begin,
            requests=counted.requests,
            errors=counted.errors,
            non_finite=counted.non_finite,
            mean_s=counted.mean_s,
            usual_s=counted.usual_s,
        )
        verdict = trial.judge(wanted, seen)
        if verdict is not trial.Verdict.GO_ON:
            return _conclude(verdict, wanted, seen)
        if now - said >= _PROGRESS_EVERY_S:
            said = now
            watched = msgspec.structs.replace(entry, watched_s=seen.watched_s, figures=counted)
            on_progress(watched, trial.progress(wanted, seen))
        interruption.wait(_LOOK_EVERY_S)


def figures(slot: Slot) -> TrialFigures:
    """What was counted so far of the model that answers, against the one before."""
    serving, previous = slot.current, slot.previous
    if serving is None:
        return TrialFigures()
    stats = serving.stats
    return TrialFigures(
        requests=stats.requests,
        errors=stats.errors,
        non_finite=stats.non_finite,
        mean_s=stats.mean_s(),
        usual_s=previous.stats.mean_s() if previous is not None else 0.0,
    )


def _conclude(verdict: trial.Verdict, wanted: Trial, seen: trial.Seen) -> str:
    """The remark on a trial that ended well; raise ModelError for one that did not."""
    if verdict is trial.Verdict.ERRORS:
        raise errors.ModelError(
            f"{seen.errors} of {seen.requests} requests on trial failed; "
            f"at most {wanted.max_error_rate * 100:g}% may",
            reason="trial_errors",
        )
    if verdict is trial.Verdict.NON_FINITE:
        raise errors.ModelError(
            f"{seen.non_finite} of {seen.requests} answers on trial held a NaN or an infinity; "
            f"at most {wanted.max_error_rate * 100:g}% may",
            reason="trial_non_finite",
        )
    if verdict is trial.Verdict.LATENCY:
        raise errors.ModelError(
            f"a run takes {seen.mean_s * 1e3:.2f} ms on trial, {seen.usual_s * 1e3:.2f} ms before",
            reason="trial_latency",
        )
    if verdict is trial.Verdict.LIMIT:
        hours = trial.limit_s(wanted) / 3600
        return (
            f"the trial ended at its limit of {hours:g} hours: {seen.requests} requests of "
            f"{wanted.minimum_requests} wanted, {seen.errors} of them failed"
        )
    return ""
