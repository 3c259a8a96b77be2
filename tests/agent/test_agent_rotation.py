"""A device exchanges its credential by itself, and whatever goes wrong, it never stands there without one."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent.core import backoff, rotation
from edgeflow_agent.link.http import DeviceApi
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.store import crashpoints
from edgeflow_agent.store.identity import CurrentIdentity, Identity, IdentityFile
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire.documents import ReportsRequest, ReportsResponse
from tests.agent.conftest import AgentProcess, Run, enrol, linear, served, wait_for

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ALWAYS = {"EDGEFLOW_AGENT_SERVER_CREDENTIAL_DAYS": "0.0000001"}


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


@pytest.mark.parametrize(
    ("since", "days", "expected"),
    [
        (ago(29.9), 30, False),
        (ago(30), 30, True),
        (None, 30, True),
        (ago(1000), 0, False),
        (None, 0, False),
        (ago(-1000), 30, False),
        (ago(0.5), 0.5, True),
    ],
)
def test_when_a_credential_is_old(since: datetime | None, days: float, expected: bool) -> None:
    assert rotation.is_due(since, NOW, days) is expected


@given(st.floats(1e-6, 1e300))
def test_a_new_one_is_not_due(days: float) -> None:
    assert not rotation.is_due(NOW, NOW, days)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "delay", lambda *_, **__: 0.05)


def identity_of(agent: Agent) -> Identity:
    identity = IdentityFile(agent.config.state_dir).read()
    assert identity is not None
    return identity


def grow_old(agent: Agent) -> None:
    agent._identity.change(credential_at=datetime.now(UTC) - timedelta(days=31))


def talks(server: FakeServer, credential: str) -> bool:
    """Whether the device goes on talking with this credential."""
    before = len(server.requests)
    wait_for(lambda: len(server.requests) > before + 3, what="the device to talk")
    return all(
        headers["authorization"] == f"Bearer {credential}" for *_, headers in server.requests[before + 1 :]
    )


def test_an_old_credential_is_exchanged_once(server: FakeServer, serving: Agent) -> None:
    old = server.credential
    assert server.rotations == 0
    grow_old(serving)
    wait_for(lambda: server.credential != old, what="the first use of a new credential")
    assert talks(server, server.credential)
    identity = identity_of(serving)
    assert (identity.credential, identity.previous_credential) == (server.credential, old)
    assert identity.credential_at is not None
    assert datetime.now(UTC) - identity.credential_at < timedelta(minutes=1)
    assert server.rotations == 1
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")


def test_never_means_never(server: FakeServer, serving: Agent, run: Run) -> None:
    grow_old(serving)
    wait_for(lambda: server.rotations == 1, what="a rotation")
    serving.stop()
    agent = run(credential_days=0.0)
    grow_old(agent)
    assert talks(server, server.credential)
    assert server.rotations == 1


def test_the_server_can_ask_for_none(server: FakeServer, serving: Agent, run: Run) -> None:
    serving.stop()
    server.wants_rotation = False
    agent = run()
    grow_old(agent)
    assert talks(server, server.credential)
    assert server.rotations == 0


def test_an_identity_of_unknown_age_is_exchanged(server: FakeServer, serving: Agent, run: Run) -> None:
    serving.stop()
    path = serving.config.state_dir / "identity.json"
    value = json.loads(path.read_text())
    del value["credential_at"], value["previous_credential"]
    path.write_text(json.dumps(value))
    run()
    wait_for(lambda: server.rotations == 1 and server.credential != value["credential"], what="a rotation")


@pytest.mark.usefixtures("_impatient")
def test_lost_answers_are_asked_for_again(server: FakeServer, serving: Agent) -> None:
    old = server.credential
    server.lost_rotations = 3
    grow_old(serving)
    wait_for(lambda: server.credential != old, what="the first use of a new credential")
    assert server.rotations == 4
    assert talks(server, server.credential)


def test_a_server_that_gives_none_is_asked_seldom(server: FakeServer, serving: Agent) -> None:
    server.lost_rotations = 10**6
    grow_old(serving)
    wait_for(lambda: server.rotations, what="the question")
    assert talks(server, server.credential)
    assert server.rotations == 1


def test_a_new_credential_that_is_refused_is_given_up_for_the_old_one(
    server: FakeServer, serving: Agent
) -> None:
    old = server.credential
    server.rejects_rotated = True
    grow_old(serving)
    wait_for(lambda: server.rotations, what="a rotation")
    wait_for(lambda: identity_of(serving).credential == old and talks(server, old), what="the old one")
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")
    assert served(serving) == 8.0
    # It will be tried again, but not at every poll.
    assert server.rotations == 1
    assert identity_of(serving).credential_at is None


def test_while_both_are_refused_both_are_kept(
    server: FakeServer, serving: Agent, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captive portal, or a server that is being restored, must not talk a device out of its identity."""
    old = server.credential
    grow_old(serving)
    wait_for(lambda: server.credential != old, what="a rotation")
    new, server.credential = server.credential, "another"
    monkeypatch.setattr("edgeflow_agent.runtime.poller._REVOKED_RETRY_S", 0.05)
    assert not talks(server, new), "both are tried"
    identity = identity_of(serving)
    assert {identity.credential, identity.previous_credential} == {old, new}
    serving.stop()
    # A server that was restored from a backup knows only the one before.
    server.credential = old
    agent = run()
    wait_for(lambda: identity_of(agent).credential == old, what="the one before")
    assert talks(server, old)


def test_a_download_lives_through_a_rotation(server: FakeServer, serving: Agent) -> None:
    server.blob_cut, server.blob_cuts_left = 20_000, 10**9
    server.deploy(2, {"model.onnx": linear(2, padding=1_000_000)})
    server.wait_report("downloading", execution="e2")
    # What is on its way with the old credential when the new one is first used is refused.
    new = server.rotate()
    assert server.admits(new)
    blobs = sum("/blobs/" in path for _, path, _ in server.requests)
    wait_for(lambda: sum("/blobs/" in path for _, path, _ in server.requests) > blobs, what="a refusal")
    serving._identity.change(credential=new)
    serving._credential_changed()
    server.blob_cuts_left = 0
    server.wait_report("deployed", execution="e2", timeout_s=30)


def test_reports_on_their_way_live_through_a_rotation(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old credential ends between the making of a request and its arrival."""
    send, late = DeviceApi.reports, []

    def reports(self: DeviceApi, request: ReportsRequest) -> ReportsResponse:
        if not late:
            late.append(server.rotate())
            serving._identity.change(credential=late[0])
            assert server.admits(late[0])
        return send(self, request)

    monkeypatch.setattr(DeviceApi, "reports", reports)
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2", timeout_s=10)
    assert talks(server, late[0])


def test_nothing_is_asked_where_the_answer_cannot_be_kept(
    server: FakeServer, serving: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: IdentityFile, identity: Identity) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    grow_old(serving)
    wait_for(lambda: server.rotations == 1 and talks(server, server.credential), what="a rotation")
    monkeypatch.setattr(IdentityFile, "write", refuse)
    serving._identity._now = msgspec.structs.replace(serving._identity.now, credential_at=None)
    assert talks(server, server.credential)
    assert server.rotations == 1


def test_a_change_that_cannot_be_kept_is_none(tmp_path: Path, server: FakeServer) -> None:
    enrol(server, tmp_path / "s")
    file = IdentityFile(tmp_path / "s")
    before = file.read()
    assert before is not None
    current = CurrentIdentity(file, before)
    (tmp_path / "s" / ".identity.json.new").mkdir()  # in the way
    with pytest.raises(OSError, match=r"identity\.json"):
        current.change(credential="new")
    assert current.now == file.read() == before


@pytest.mark.parametrize("point", [item for item in crashpoints.POINTS if item.startswith("rotate.")])
def test_power_cut_in_a_rotation(
    server: FakeServer, tmp_path: Path, agents: Callable[..., AgentProcess], point: str
) -> None:
    state_dir = tmp_path / "state"
    enrol(server, state_dir)
    old = server.credential
    first = agents(state_dir, env=ALWAYS | {crashpoints.VARIABLE: point})
    assert first.process.wait(20) == -signal.SIGKILL
    assert server.rotations == 1
    again = agents(state_dir, env=ALWAYS | {crashpoints.VARIABLE: point})
    assert again.process.wait(20) == -signal.SIGKILL
    assert server.rotations == 2

    # The next start goes on with whatever the disk says.
    asked = len(server.requests)
    last = agents(state_dir, env=ALWAYS | {"EDGEFLOW_AGENT_SERVER_CREDENTIAL_DAYS": "1"})
    server.deploy(1, {"model.onnx": linear(1)})
    server.wait_report("deployed", execution="e1")
    used = {headers["authorization"] for *_, headers in server.requests[asked:]}
    written: dict[str, Any] = json.loads((state_dir / "identity.json").read_text())
    assert written["credential"] == server.credential
    assert used == {f"Bearer {server.credential}"}
    assert (server.credential == old) == (point == "rotate.answered")
    assert last.stop() == 0

    # And one that asks again gets another one.
    again = agents(state_dir, env=ALWAYS)
    wait_for(lambda: server.rotations >= 4 and server.credential != written["credential"], what="a rotation")
    assert again.stop() == 0
