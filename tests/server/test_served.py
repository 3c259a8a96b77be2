"""Who served what at a moment: what the table says, against a naive replay of everything that was heard."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflow_agent.wire import documents
from edgeflow_mlflow import config
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import enrol, ingest, opening
from edgeflow_mlflow.services.lineage import serving, tracing
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_bundle, add_target

TARGETS = ("a", "b")
# A bundle of this server, another, bytes that it does not know, and nothing at all.
VERSIONS = ("1", "2", "unknown", "")

_events = st.lists(
    st.tuples(
        st.sampled_from(TARGETS),
        st.sampled_from([*VERSIONS, "goodbye", "deleted"]),
        st.integers(0, 3),  # minutes since the one before
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> State:
    folder: Path = tmp_path_factory.mktemp("served")
    chosen = config.load(
        environment={},
        flags={
            "server.data_dir": str(folder / "data"),
            "server.database_url": f"sqlite:///{folder}/edgeflow.db",
        },
    )
    state = dataclasses.replace(opening.open_state(opening.resolve(chosen, None)), now=Clock())
    for version in ("1", "2"):
        add_bundle(state, version)
    return state


def _digests(state: State) -> dict[str, str]:
    with state.database.read() as session:
        found = {row.model_version: row.digest for row in session.query(models.Bundle)}
    return {**found, "unknown": "f" * 64, "": ""}


def _replay(events: list[tuple[datetime, str, str]], target: str, moment: datetime) -> str:
    """The newest thing that was heard of a target until then."""
    served = ""
    for at, name, said in events:
        if name == target and at <= moment and said != "goodbye":
            served = "" if said == "deleted" else said
    return served


@settings(max_examples=150, deadline=None)
@given(_events, st.lists(st.integers(-2, 60), min_size=1, max_size=5))
def test_time_travel_is_a_replay_of_what_was_heard(
    shared: State, events: list[tuple[str, str, int]], minutes: list[int]
) -> None:
    state, clock = shared, shared.now
    assert isinstance(clock, Clock)
    clock.pass_by(days=1)  # a past of its own for every example
    begin = clock.now
    for name in TARGETS:
        add_target(state, name)
    digests = _digests(state)
    heard = []
    present = set(TARGETS)
    last = dict.fromkeys(TARGETS, "")
    for number, (target, said, later) in enumerate(events):
        clock.pass_by(minutes=later)
        heard.append((clock.now, target, said))
        if said == "deleted":
            if target in present:
                enrol.forget(state, target)
                present.discard(target)
            continue
        if target not in present:
            add_target(state, target)
            present.add(target)
        last[target] = last[target] if said == "goodbye" else digests[said]
        if heard[-1][2] == "goodbye" and _replay(heard, target, clock.now) == "":
            last[target] = ""
        kind = documents.PresenceKind.GOODBYE if said == "goodbye" else documents.PresenceKind.HEARTBEAT
        message = documents.Presence(kind=kind, boot=f"b{number}", digest=last[target])
        ingest.presence(state, target, message, connected=True)
    with state.database.read() as session:
        for moment in (begin + timedelta(minutes=item) for item in minutes):
            for target in TARGETS:
                found = serving.at(session, target, moment)
                wanted = _replay(heard, target, moment) if moment >= begin else ""
                assert ("" if found is None else found.digest) == digests[wanted], (target, moment, heard)
            for version in ("1", "2"):
                wanted_on = {name for name in TARGETS if _replay(heard, name, moment) == version}
                rows = serving.on_bundles(session, [f"bundle-iris-{version}"], moment=moment, limit=10)
                assert {row.target_id for row in rows} == (wanted_on if moment >= begin else set())
                assert len(rows) == len(wanted_on if moment >= begin else ())
    for name in present:
        enrol.forget(state, name)


def test_a_digest_that_nobody_published_is_a_finding(state: State) -> None:
    add_target(state, "robot")
    birth = documents.Presence(kind=documents.PresenceKind.BIRTH, boot="b")
    ingest.presence(state, "robot", birth, connected=True)
    with state.database.read() as session:
        found = tracing.of_target(session, "robot", None, state.now())
    assert [what for what, _ in found.findings] == ["served"]
    message = documents.Presence(kind=documents.PresenceKind.HEARTBEAT, boot="b", digest="e" * 64)
    ingest.presence(state, "robot", message, connected=True)
    with state.database.read() as session:
        found = tracing.of_target(session, "robot", None, state.now())
    assert [what for what, _ in found.findings] == ["digest"]
    assert "by hand" in found.findings[0][1]


def test_pages_come_in_order_and_miss_nobody(state: State) -> None:
    for version in ("1", "2"):
        add_bundle(state, version)
    digests = _digests(state)
    for number in range(25):
        add_target(state, f"t{number:02}")
        message = documents.Presence(
            kind=documents.PresenceKind.HEARTBEAT, boot="b", digest=digests[str(1 + number % 2)]
        )
        ingest.presence(state, f"t{number:02}", message, connected=True)
    seen: list[str] = []
    after = None
    with state.database.read() as session:
        while True:
            rows = serving.on_bundles(
                session, ["bundle-iris-1", "bundle-iris-2"], moment=None, after=after, limit=4
            )
            if not rows:
                break
            seen += [row.target_id for row in rows]
            after = (rows[-1].bundle_id, rows[-1].target_id)
    assert sorted(seen) == [f"t{number:02}" for number in range(25)]
