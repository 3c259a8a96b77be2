"""Trials: the verdict, the limit, and what the server hears meanwhile."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent.core import trial
from edgeflow_agent.core.machine import Work
from edgeflow_agent.core.trial import Seen, Verdict
from edgeflow_agent.inference import finite
from edgeflow_agent.runtime import watching
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.runtime.reporting import Reporter
from edgeflow_agent.store.journal import Entry, Journal
from edgeflow_agent.store.spool import of_reports
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire.documents import Action, DesiredDeployment, Trial, TrialFigures
from edgeflow_agent.wire.states import State
from tests.agent.conftest import Run, failing, linear, request, served, wait_for

DAY = 24 * 3600.0


def seen(lasted_s: float, requests: int = 0, errors: int = 0, **changes: float) -> Seen:
    values = {"watched_s": lasted_s, "mean_s": 0.001, "usual_s": 0.001} | changes
    return Seen(lasted_s=lasted_s, requests=requests, errors=errors, **values)


@pytest.mark.parametrize(
    ("wanted", "facts", "expected"),
    [
        (Trial(duration_s=60), seen(59.9), Verdict.GO_ON),
        (Trial(duration_s=60), seen(60), Verdict.WELL),
        (Trial(duration_s=60, minimum_requests=5), seen(60, 4), Verdict.GO_ON),
        (Trial(duration_s=60, minimum_requests=5), seen(60, 5), Verdict.WELL),
        # Errors: over at least ten requests, beyond the share and not at it.
        (Trial(duration_s=60), seen(1, 9, 9), Verdict.GO_ON),
        (Trial(duration_s=60), seen(1, 10, 1), Verdict.GO_ON),
        (Trial(duration_s=60), seen(1, 10, 2), Verdict.ERRORS),
        (Trial(duration_s=60), seen(60, 10, 2), Verdict.ERRORS),
        # A NaN or an infinity in an answer counts like an error.
        (Trial(duration_s=60), seen(1, 9, non_finite=9), Verdict.GO_ON),
        (Trial(duration_s=60), seen(1, 10, non_finite=1), Verdict.GO_ON),
        (Trial(duration_s=60), seen(1, 10, non_finite=2), Verdict.NON_FINITE),
        (Trial(duration_s=60), seen(1, 10, 2, non_finite=2), Verdict.ERRORS),
        (Trial(minimum_requests=5), seen(DAY, 1, non_finite=1), Verdict.NON_FINITE),
        # Latency: only when it is watched, and against something.
        (Trial(duration_s=60, max_latency_ratio=2), seen(1, 10, mean_s=0.002), Verdict.GO_ON),
        (Trial(duration_s=60, max_latency_ratio=2), seen(1, 10, mean_s=0.003), Verdict.LATENCY),
        (Trial(duration_s=60, max_latency_ratio=2), seen(1, 9, mean_s=0.003), Verdict.GO_ON),
        (Trial(duration_s=60, max_latency_ratio=2), seen(1, 10, mean_s=0.003, usual_s=0), Verdict.GO_ON),
        (Trial(duration_s=60), seen(1, 10, mean_s=9), Verdict.GO_ON),
        # The limit: a day, or twice a longer trial; then any request counts.
        (Trial(minimum_requests=5), seen(DAY - 1, 4), Verdict.GO_ON),
        (Trial(minimum_requests=5), seen(DAY), Verdict.LIMIT),
        (Trial(minimum_requests=5), seen(DAY, 1, 1), Verdict.ERRORS),
        (Trial(minimum_requests=50), seen(DAY, 20, 2), Verdict.LIMIT),
        (Trial(duration_s=DAY, minimum_requests=5), seen(2 * DAY - 1), Verdict.GO_ON),
        (Trial(duration_s=DAY, minimum_requests=5), seen(2 * DAY), Verdict.LIMIT),
        # A device that is switched off every night never sees a day without a break.
        (Trial(duration_s=DAY / 2), seen(60, watched_s=DAY), Verdict.LIMIT),
    ],
)
def test_the_verdict(wanted: Trial, facts: Seen, expected: Verdict) -> None:
    assert trial.judge(wanted, facts) is expected


TRIALS = st.builds(
    Trial,
    duration_s=st.floats(0, 1e7),
    minimum_requests=st.integers(0, 10**6),
    max_error_rate=st.floats(0, 1),
    max_latency_ratio=st.floats(0, 10),
)


@given(TRIALS, st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1e6))
def test_every_trial_ends_and_its_progress_is_a_share(
    wanted: Trial, requests: int, errors: int, lasted_s: float
) -> None:
    facts = seen(lasted_s, requests, min(errors, requests))
    assert 0 <= trial.progress(wanted, facts) <= 1
    if trial.judge(wanted, facts) is Verdict.WELL:
        assert trial.progress(wanted, facts) == 1
    at_the_limit = dataclasses.replace(facts, watched_s=trial.limit_s(wanted))
    assert trial.judge(wanted, at_the_limit) is not Verdict.GO_ON


def test_a_long_trial_says_that_it_goes_on(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PROGRESS_EVERY_S", 0.1)
    server.deploy(2, {"model.onnx": linear(2)}, trial=Trial(minimum_requests=8))
    server.wait_report("trial", execution="e2")
    for _ in range(4):
        served(serving)

    def said() -> list[float]:
        return [r.progress for r in list(server.reports) if r.state == "trial" and r.progress is not None]

    wait_for(lambda: len(said()) >= 3 and said()[-1] == 0.5, what="reports of progress")
    for _ in range(4):
        served(serving)
    server.wait_report("deployed", execution="e2")


@pytest.mark.parametrize(("requests", "end"), [(0, "deployed"), (3, "rolled_back")])
def test_a_trial_without_enough_requests_ends_by_what_was_seen(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch, requests: int, end: str
) -> None:
    monkeypatch.setattr(trial, "LIMIT_S", 2.0)
    server.deploy(2, {"model.onnx": failing()}, trial=Trial(minimum_requests=1000))
    server.wait_report("trial", execution="e2")
    for _ in range(requests):
        assert request(f"{serving.url}/infer", [1, 1, 1, 1])[0] == 500
    report = server.wait_report(end, execution="e2")
    if end == "deployed":
        assert "0 requests of 1000" in report.message
    else:
        assert report.reason == "trial_errors"
        assert served(serving) == 4.0


def test_the_time_on_trial_is_kept_over_restarts(
    server: FakeServer, serving: Agent, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PROGRESS_EVERY_S", 0.1)
    server.deploy(2, {"model.onnx": linear(2)}, trial=Trial(minimum_requests=1000))

    def watched() -> float:
        active = Journal(serving.config.state_dir).record.active
        return active.watched_s if active is not None else 0.0

    before = wait_for(watched, what="the time on trial in the journal")
    serving.stop()
    monkeypatch.setattr(trial, "LIMIT_S", watched())
    assert watched() >= before
    run()
    server.wait_report("deployed", execution="e2")


def test_a_full_disk_does_not_end_a_trial(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PROGRESS_EVERY_S", 0.1)
    server.deploy(2, {"model.onnx": linear(2)}, trial=Trial(minimum_requests=1))
    server.wait_report("trial", execution="e2")
    with monkeypatch.context() as patch:
        refused: list[object] = []

        def write(record: object) -> None:
            refused.append(record)
            raise OSError(28, "No space left on device")

        patch.setattr(serving._deployer._journal, "write", write)
        wait_for(lambda: len(refused) > 2, what="the journal to be written")
    served(serving)
    server.wait_report("deployed", execution="e2")


def test_news_of_progress_does_not_push_reports_out_of_the_spool(tmp_path: Path) -> None:
    spool = of_reports(tmp_path / "spool.db", max_bytes=10**6)
    reporter = Reporter(spool, lambda: None)
    deployment = DesiredDeployment(id="d", execution="e", name="n", action=Action.HOLD)
    entry = Entry(deployment=deployment, generation=1, key="k", work=Work.HOLD, state=State.TRIAL)
    for _ in range(300):
        reporter.progress(entry, 0.5)
    assert spool.pending_count == 100
    reporter.step(entry)
    assert spool.pending_count == 101
    spool.close()


def test_answers_that_are_no_numbers_send_a_model_back(server: FakeServer, serving: Agent) -> None:
    server.deploy(2, {"model.onnx": linear(np.inf)}, trial=Trial(duration_s=3600))
    server.wait_report("trial", execution="e2")
    for _ in range(10):
        request(f"{serving.url}/infer", [1, 1, 1, 1])
    report = server.wait_report("rolled_back", execution="e2", reason="trial_non_finite")
    assert report.trial is not None
    assert report.trial.non_finite == report.trial.requests >= 10
    assert served(serving) == 4.0
    # Nobody looks any more.
    assert serving.slot.current is not None
    assert not serving.slot.current.stats.on_trial


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([np.ones(3, np.float32)], True),
        ([np.array([1, np.nan], np.float16)], False),
        ([np.ones(2), np.array([-np.inf])], False),
        ([np.zeros((0, 4)), None, np.array(["nan"], object), np.array([1])], True),
        ([[{0: 0.5, 1: 0.5}, {0: 0.5, 1: float("nan")}]], False),
        ([[{"a": 0.5}], [np.ones(2), np.array([np.nan])]], False),
    ],
)
def test_which_outputs_are_numbers(outputs: list[object], expected: bool) -> None:
    assert finite.all_finite(outputs) is expected


@pytest.mark.parametrize("end", ["deployed", "rolled_back", "cancelled"])
def test_what_was_counted_goes_with_the_reports(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(watching, "_PROGRESS_EVERY_S", 0.1)
    wanted = Trial(duration_s=0 if end == "deployed" else 3600, minimum_requests=12)
    server.deploy(2, {"model.onnx": failing()}, trial=wanted)
    assert server.wait_report("trial", execution="e2").trial is not None
    for _ in range(2 if end == "rolled_back" else 0):
        request(f"{serving.url}/infer", [1, 1, 1, 1])

    def last() -> TrialFigures:
        found = [item.trial for item in list(server.reports) if item.state == "trial"]
        assert all(item is not None for item in found)
        return found[-1] or TrialFigures()

    for _ in range(8):
        request(f"{serving.url}/infer", [0, 0, 0, 0])
    if end == "deployed":
        for _ in range(4):
            request(f"{serving.url}/infer", [0, 0, 0, 0])
    elif end == "cancelled":
        wait_for(lambda: last().requests == 8, what="the figures in a report of progress")
        server.deploy(3, {"model.onnx": linear(3)})
    report = server.wait_report(end, execution="e2").trial
    assert report is not None
    counted = {"deployed": (12, 0), "rolled_back": (10, 2), "cancelled": (8, 0)}[end]
    assert (report.requests, report.errors) == counted
    assert report.mean_s > 0
    assert report.usual_s > 0
    # What comes after, and what was never on trial, has none.
    assert all(item.trial is None for item in server.reports if item.execution == "e1")
