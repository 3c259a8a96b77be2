"""A disk that cannot be written for a while, and one that a killed agent left in disorder."""

from __future__ import annotations

import errno
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeflow_agent.core import backoff
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.store import durable
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire.documents import Action, DesiredDeployment, Interface, Trial
from tests.agent.conftest import Run, failing, linear, request, served, wait_for


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "delay", lambda *_, **__: 0.05)


def refusing(call: Callable[..., Any], wanted: Callable[[int], bool]) -> Callable[..., Any]:
    """`call`, but every passage whose number is `wanted` finds the disk full."""
    numbers = itertools.count(1)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if wanted(next(numbers)):
            raise full()
        return call(*args, **kwargs)

    return refuse


# An install writes the journal seven times: accepted, its five steps, and when it is settled.
@pytest.mark.parametrize("first", range(1, 8))
def test_an_install_goes_on_when_the_journal_can_be_written_again(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    journal = serving._deployer._journal
    monkeypatch.setattr(journal, "write", refusing(journal.write, lambda n: first <= n < first + 3))
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")
    assert served(serving) == 8.0
    wait_for(lambda: not serving._deployer.busy, what="the deployment to be settled")
    server.deploy(3, {"model.onnx": linear(3)})
    server.wait_report("deployed", execution="e3")
    # Nobody died, so nobody is blamed.
    assert {item.attempt for item in server.reports} == {1}


def test_a_newer_document_ends_one_that_a_full_disk_holds_up(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = serving._deployer._journal
    room = False
    monkeypatch.setattr(journal, "write", refusing(journal.write, lambda n: n > 2 and not room))
    server.deploy(2, {"model.onnx": linear(2)})
    wait_for(lambda: "make room" in caplog.text.lower(), what="a word about the disk")
    server.deploy(3, {"model.onnx": linear(3)})
    assert served(serving) == 4.0
    room = True
    server.wait_report("deployed", execution="e3")
    assert server.states("e2")[-1] == "cancelled"
    assert sum("Make room" in item.message for item in caplog.records if item.levelno == logging.ERROR) == 1


def remove(server: FakeServer) -> DesiredDeployment:
    return DesiredDeployment(id="d1", execution="e2", name="iris", action=Action.REMOVE)


def adopt(server: FakeServer) -> DesiredDeployment:
    return server.install(2, {"model.onnx": linear(1)}, version="renamed", interface=Interface())


def bad(server: FakeServer) -> DesiredDeployment:
    return server.install(2, {"model.onnx": failing()}, trial=Trial(duration_s=3600))


ENDS: dict[str, tuple[Callable[[FakeServer], DesiredDeployment], str, str, float | None]] = {
    "remove": (remove, "remove", "deployed", None),
    "adopt": (adopt, "replace", "deployed", 4.0),
    "revert": (bad, "point", "rolled_back", 4.0),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_is_reported_when_it_is_carried_out(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, call, end, expected = ENDS[name]
    server.offer(server.sign(2, [make(server)]))
    refused: list[int] = []

    def refuse(path: Path, *args: Any, **kwargs: Any) -> None:
        # What lies beside the journal and the spool: pointers and manifests.
        if room or path.name not in ("current", "previous", "manifest.json"):
            original(path, *args, **kwargs)
        else:
            refused.append(1)
            raise full()

    room = name == "revert"
    original = getattr(durable, call)
    monkeypatch.setattr(durable, call, refuse)
    if name == "revert":
        server.wait_report("trial", execution="e2")
        room = False
        for _ in range(10):
            request(f"{serving.url}/infer", [1, 1, 1, 1])
        # Whoever asks does not wait for the disk.
        wait_for(lambda: served(serving) == 4.0, what="the old model to answer")
    wait_for(lambda: len(refused) > 2, what="further attempts")
    assert end not in server.states("e2")
    room = True
    server.wait_report(end, execution="e2")
    assert served(serving) == expected


def test_an_agent_starts_on_a_full_disk(
    server: FakeServer, serving: Agent, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deploy(2, {"model.onnx": linear(2)}, trial=Trial(minimum_requests=5))
    server.wait_report("trial", execution="e2")
    serving.stop()
    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", refusing(durable.replace, lambda n: True))
        agent = run()
        assert served(agent) == 8.0
    for _ in range(4):
        served(agent)
    server.wait_report("deployed", execution="e2")


def test_leftovers_of_a_killed_agent_are_cleared_up(server: FakeServer, serving: Agent, run: Run) -> None:
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")
    serving.stop()
    root = serving.config.state_dir
    before = {str(path.relative_to(root)) for path in root.rglob("*")}
    leftovers = (
        ".journal.json.new",
        ".identity.json.new",
        "partial/" + "a" * 64 + ".part",
        "blobs/sha256/bb/" + "b" * 64,
        "releases/e3-3.tmp/files/model.onnx",
        "releases/e0-0.trash/READY",
        "releases/e9-9/READY",
        "releases/e2-2/.manifest.json.new",
    )
    for name in leftovers:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"left behind")
    (root / ".current.new").symlink_to("releases/e9-9")
    agent = run()
    assert served(agent) == 8.0
    agent.stop()
    assert {str(path.relative_to(root)) for path in root.rglob("*")} - before <= {"blobs/sha256/bb"}


def test_clearing_up_leaves_a_download_and_its_bytes(server: FakeServer, serving: Agent, run: Run) -> None:
    server.blob_cut, server.blob_cuts_left = 100_000, 10**9
    deployment = server.deploy(2, {"model.onnx": linear(2, padding=1_000_000)})
    blob = deployment.files[0].sha256
    partial = serving.config.state_dir / "partial" / f"{blob}.part"
    wait_for(lambda: partial.exists() and partial.stat().st_size, what="the first bytes")
    serving.stop()
    have = partial.stat().st_size
    asked = len(server.requests)
    server.blob_cuts_left = 0
    run()
    server.wait_report("deployed", execution="e2")
    ranges = [headers.get("range") for _, path, headers in server.requests[asked:] if path.endswith(blob)]
    assert ranges == [f"bytes={have}-"]


def test_clearing_up_leaves_what_a_trial_may_go_back_to(server: FakeServer, serving: Agent, run: Run) -> None:
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")
    server.deploy(3, {"model.onnx": failing()}, trial=Trial(duration_s=3600))
    server.wait_report("trial", execution="e3")
    serving.stop()
    agent = run()
    for _ in range(10):
        request(f"{agent.url}/infer", [1, 1, 1, 1])
    server.wait_report("rolled_back", execution="e3")
    root = agent.config.state_dir
    assert served(agent) == 8.0
    assert {name: (root / name / "READY").exists() for name in ("current", "previous")} == {
        "current": True,
        "previous": True,
    }
