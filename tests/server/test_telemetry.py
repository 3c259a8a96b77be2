"""Windows of telemetry: stored exactly once, whatever a device sends and how often."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from edgeflow_agent.wire import telemetry as wire
from edgeflow_agent.wire.documents import Stored
from edgeflow_agent.wire.sketches import NumericRecord
from edgeflow_agent.wire.telemetry import Latency, Requests
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import refusals, telemetry
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock
from tests.server.watched_device import Watched, fleet, on_sqlite, values


def rows(state: State, target: str) -> Sequence[models.Window]:
    with state.database.read() as session:
        return session.scalars(
            select(models.Window).where(models.Window.target_id == target).order_by(models.Window.id)
        ).all()


def waiting(state: State) -> int:
    with state.database.read() as session:
        return session.scalar(select(func.count()).select_from(models.UnjudgedWindow)) or 0


def refused(state: State, target: str) -> dict[str, int]:
    with state.database.read() as session:
        return {row.reason: row.count for row in refusals.of_target(session, target)}


@pytest.fixture
def device(state: State, tmp_path: Path) -> Watched:
    return fleet(state, tmp_path, "robot-1")[0]


def test_a_window_is_stored_once(state: State, device: Watched) -> None:
    packed = [device.sent(values(500)), device.sent()]
    answer = telemetry.take(state, device.name, packed)
    assert answer == wire.TelemetryResponse(stored=(Stored(boot="boot-1", seqs=(1, 2)),))
    assert telemetry.take(state, device.name, [*packed, packed[0]]).stored == answer.stored

    first, second = rows(state, device.name)
    assert (first.model_name, first.model_version, first.digest) == ("iris", "1", device.bundle.digest)
    assert (first.requests, first.outcomes, first.observed) == (500, {"ok": 500}, 500)
    assert sum(first.latency_counts) == 500
    assert first.end_at - first.start_at == timedelta(seconds=60)
    assert wire.unpack(first.payload or b"").features == wire.unpack(packed[0]).features
    assert second.payload is None
    assert waiting(state) == 1
    assert refused(state, device.name) == {}


def test_ten_senders_of_the_same_window_store_it_once(state: State, device: Watched) -> None:
    packed = [device.sent(values(20)) for _ in range(5)]
    threads = [threading.Thread(target=telemetry.take, args=(state, device.name, packed)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(state, device.name)) == waiting(state) == 5


def test_what_was_merged_is_known(state: State, device: Watched) -> None:
    with state.database.write() as session:
        session.add(models.MergedWindows(target_id=device.name, boot="boot-1", first_seq=1, last_seq=2))
    answer = telemetry.take(state, device.name, [device.sent() for _ in range(3)])
    assert answer.stored[0].seqs == (1, 2, 3)
    assert [row.seq for row in rows(state, device.name)] == [3]


@on_sqlite
def test_who_is_no_target_sends_nothing(state: State, device: Watched) -> None:
    with pytest.raises(errors.NotFoundError):
        telemetry.take(state, "nobody", [device.sent()])


HEAD = b'{"boot":"b","seq":1,"start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:00:00Z"'
UNREADABLE = {
    "nothing": b"",
    "no zlib": b"no zlib",
    "no json": zlib.compress(b"no json"),
    "no window": zlib.compress(b"{}"),
    "negative": zlib.compress(HEAD.replace(b":1,", b":-1,") + b"}"),
    "infinite": zlib.compress(HEAD + b',"seconds":1e999}'),
    "nan": zlib.compress(HEAD + b',"seconds":NaN}'),
    "bomb": zlib.compress(b" " * (wire.MAX_UNPACKED_BYTES + 1)),
    "long": b"x" * (wire.MAX_WINDOW_BYTES + 1),
}


@on_sqlite
def test_what_cannot_be_read_is_refused_and_the_others_are_stored(state: State, device: Watched) -> None:
    answer = telemetry.take(state, device.name, [*UNREADABLE.values(), device.sent()])
    assert list(answer.refused) == [str(number) for number in range(len(UNREADABLE))]
    assert answer.stored[0].seqs == (1,)
    assert refused(state, device.name) == {"unreadable": len(UNREADABLE)}


HOSTILE: dict[str, dict[str, Any]] = {
    "seconds": {"seconds": -1.0},
    "counts": {"requests": Requests(ok=2**53, error=2**53)},
    "latency": {"latency": Latency(counts=(1, 2, 3), sum_s=1.0)},
    "latency sum": {"latency": Latency(counts=(0,) * 16, sum_s=-5.0)},
    "foreign": {"digest": "0" * 64},
    "foreign id": {"digest": "robot-2"},
    "baseline": {"baseline": "0" * 64},
    "baseline name": {"baseline": "../../etc", "is_learned": True},
    "counts observed": {"observed": 2**53, "unobserved": 2**53},
}


def test_sketches_of_who_contradicts_itself_are_dropped(state: State, device: Watched) -> None:
    seen = values(50)
    for name, changes in HOSTILE.items():
        packed = device.sent(seen, **changes)
        before = refused(state, device.name)
        answer = telemetry.take(state, device.name, [packed])
        assert answer.stored, name
        assert not answer.refused, name
        row = rows(state, device.name)[-1]
        reason = name.partition(" ")[0]
        assert row.payload is None, name
        assert row.refused.startswith(reason)
        assert row.requests in (0, 50)
        assert sum(row.latency_counts) in (0, 50)
        telemetry.take(state, device.name, [packed])  # a repeat is not counted again
        assert refused(state, device.name) == before | {reason: before.get(reason, 0) + 1}
    assert waiting(state) == 0


@on_sqlite
def test_too_many_features_are_dropped(state: State, device: Watched) -> None:
    window = device.window(values(50))
    many = [NumericRecord(name=f"f{number}") for number in range(10_000)]
    packed = wire.pack(msgspec.structs.replace(window, features=tuple(many)))
    assert telemetry.take(state, device.name, [packed]).stored
    assert refused(state, device.name) == {"features": 1}
    assert rows(state, device.name)[0].requests == 50


@on_sqlite
def test_another_devices_model_is_not_counted_as_its_own(state: State, tmp_path: Path) -> None:
    one, two = fleet(state, tmp_path, "robot-1", "robot-2")
    with state.database.write() as session:
        session.add(models.Target(id="robot-3", created_at=state.now()))
    telemetry.take(state, "robot-3", [one.sent(values(50))])
    row = rows(state, "robot-3")[0]
    assert (row.model_name, row.digest, row.deployment_id) == ("", "", "")
    assert row.refused.startswith("foreign")
    assert rows(state, two.name) == []


@on_sqlite
def test_the_future_is_now_and_the_dark_past_as_well(state: State, device: Watched, clock: Clock) -> None:
    for days in (0.01, 500, 10**6, -400, -700_000):
        at = clock.now + timedelta(days=days)
        telemetry.take(state, device.name, [device.sent(start=at, end=at)])
    found = rows(state, device.name)
    assert [row.end_at for row in found] == [clock.now] * 5


@on_sqlite
def test_the_recent_past_stays_where_it_was(state: State, device: Watched, clock: Clock) -> None:
    at = clock.now - timedelta(days=3)
    telemetry.take(state, device.name, [device.sent(start=at, end=at)])
    row = rows(state, device.name)[0]
    assert (row.end_at, row.received_at) == (at, clock.now)
