"""Whether a trial is over, and how it ended: what was seen goes in, the verdict comes out."""

from __future__ import annotations

import dataclasses
import enum

from edgeflow_agent.wire.documents import Trial

# A trial without a time of its own, or with a short one, may wait this long for its requests.
LIMIT_S = 24 * 3600.0
# A longer one may last so many times the time that was asked for.
LIMIT_TIMES = 2
# Fewer requests say little, and nothing about latency.
ENOUGH_REQUESTS = 10


class Verdict(enum.StrEnum):
    """What becomes of the model on trial."""

    GO_ON = "go_on"
    WELL = "well"  # the time is over and the requests were answered
    LIMIT = "limit"  # too few requests came in all that time; nothing that was seen speaks against it
    ERRORS = "errors"
    LATENCY = "latency"
    NON_FINITE = "non_finite"  # answered with a NaN or an infinity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen so far.

    `lasted_s` begins at the swap, and anew with every start of the agent, as the counts do; `watched_s`
    goes on over the starts. `usual_s` is the mean run of the model before (0: there was none).
    """

    lasted_s: float
    watched_s: float
    requests: int = 0
    errors: int = 0
    non_finite: int = 0
    mean_s: float = 0.0
    usual_s: float = 0.0


def limit_s(trial: Trial) -> float:
    """How long a trial is watched at most, so that one without traffic ends as well."""
    return max(LIMIT_S, LIMIT_TIMES * trial.duration_s)


def judge(trial: Trial, seen: Seen) -> Verdict:
    """How the trial stands. At its limit any request counts, however few there were."""
    over = seen.watched_s >= limit_s(trial)
    enough = seen.requests >= ENOUGH_REQUESTS
    judged = enough or (over and seen.requests > 0)
    if judged and seen.errors / seen.requests > trial.max_error_rate:
        return Verdict.ERRORS
    if judged and seen.non_finite / seen.requests > trial.max_error_rate:
        return Verdict.NON_FINITE
    watched = enough and trial.max_latency_ratio > 0 and seen.usual_s > 0
    if watched and seen.mean_s > trial.max_latency_ratio * seen.usual_s:
        return Verdict.LATENCY
    if seen.lasted_s >= trial.duration_s and seen.requests >= trial.minimum_requests:
        return Verdict.WELL
    return Verdict.LIMIT if over else Verdict.GO_ON


def progress(trial: Trial, seen: Seen) -> float:
    """The share of time or requests that is there, whichever lacks more."""
    time = seen.lasted_s / trial.duration_s if trial.duration_s > 0 else 1.0
    requests = seen.requests / trial.minimum_requests if trial.minimum_requests else 1.0
    return min(time, requests, 1.0)
