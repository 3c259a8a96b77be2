"""Requests that are answered together get the answers that each would get by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent.inference import predictor, slot
from edgeflow_agent.inference.http_protocol import Connection
from edgeflow_agent.inference.http_reader import Limits
from edgeflow_agent.inference.known_heads import KnownHeads
from edgeflow_agent.inference.metrics import Metrics
from edgeflow_agent.inference.observing import Observer
from edgeflow_agent.inference.routes import Routes
from edgeflow_agent.inference.together import Together
from edgeflow_agent.wire.documents import Interface, ModelRef
from tests.agent.conftest import linear
from tests.agent.served import receive
from tests.agent.test_agent_hot_path import Wire
from tests.agent.turns import Turns


class Device:
    """One event loop with a model that answers on it."""

    def __init__(self, model: Path) -> None:
        self.turns = Turns()
        self.metrics = Metrics()
        self.observer = Observer()
        models = slot.Slot()
        serving = slot.load(model, model=ModelRef(name="m", version="1"), declared=Interface(), threads=1)
        models.swap(serving)
        self.observer.engine, self.observer.every = serving.engine, 1
        self.predictor = predictor.Predictor(models, self.metrics, self.observer, self.turns.loop)
        self.routes = Routes(models, self.predictor, self.metrics)

    def connect(self) -> tuple[Connection, Wire]:
        buffer = memoryview(bytearray(4096))
        connection, wire = Connection(self.routes, Limits(), set(), KnownHeads(), buffer), Wire()
        connection.connection_made(wire)
        return connection, wire


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Device, Device]]:
    """One whose requests come in the same turns, and one that is asked between its turns."""
    model = tmp_path_factory.mktemp("together") / "model.onnx"
    model.write_bytes(linear(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "_INLINE_BELOW_S", math.inf)  # however slow this machine is now
        both = Device(model), Device(model)
        yield both
        for device in both:
            device.predictor.close()


def asked(body: bytes, *, more: bytes = b"") -> bytes:
    return b"POST /infer HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s" % (more, len(body), body)


_GOOD = asked(b"[1,2,3,4]")
PIECES = st.sampled_from(
    [
        _GOOD,
        _GOOD + asked(b"[5,6,7,8]") + _GOOD,
        asked(b"[1,2,3]"),
        asked(b"no json"),
        asked(b"[[1,2,3,4],[5,6,7,8]]", more=b"Accept-Encoding: gzip\r\n"),
        asked(b"[1,2,3,4]", more=b"Content-Type: text/csv\r\n"),
        asked(b"[1,2,3,4]", more=b"Connection: close\r\n"),
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        _GOOD[:20],
        _GOOD[20:],
        b"nonsense\r\n\r\n",
        b"",  # the client sends no more
    ]
)


@given(st.lists(st.tuples(PIECES, PIECES, PIECES), max_size=5))
def test_together_and_one_by_one_say_the_same(
    devices: tuple[Device, Device], turns: list[tuple[bytes, bytes, bytes]]
) -> None:
    told, counted = [], []
    for device, together in zip(devices, (True, False), strict=True):
        before = device.metrics.counted()
        connections = [device.connect() for _ in range(3)]
        for pieces in turns:
            for (connection, _), piece in zip(connections, pieces, strict=True):
                say = (lambda c=connection, p=piece: receive(c, p)) if piece else connection.eof_received
                if together:
                    device.turns.call_soon(say)
                else:
                    say()
            while device.turns.turn():
                pass
        for connection, _ in connections:
            connection.stop()
        told.append([(wire.written, wire.closed) for _, wire in connections])
        counted.append((device.metrics.counted().since(before).requests, len(device.observer.collect(1000))))
    assert told[0] == told[1]
    assert counted[0] == counted[1]


def test_each_step_is_done_for_all_before_the_next() -> None:
    turns, done = Turns(), list[str]()

    def first(name: str) -> None:
        done.append(f"first {name}")
        if name == "b":
            raise ValueError("one that fails stops nobody else")

    together = Together[str](turns.loop, (first, lambda name: done.append(f"second {name}")))
    assert not together.add("alone")
    for name in "abc":
        turns.call_soon(lambda name=name: together.add(name))
    turns.turn()
    assert done == []
    turns.turn()
    assert done == ["first a", "first b", "first c", "second a", "second b", "second c"]
    assert not turns.turn()


def test_who_is_answered_may_ask_again_at_once() -> None:
    turns, answered = Turns(), list[int]()

    def answer(number: int) -> None:
        answered.append(number)
        if number < 2:
            together.add(number + 10)

    together = Together[int](turns.loop, [answer])
    for number in range(2):
        turns.call_soon(lambda number=number: together.add(number))
    turns.turn()
    turns.call_soon(lambda: None)  # something else comes meanwhile
    turns.turn()
    assert answered == [0, 1]
    turns.turn()
    assert answered == [0, 1, 10, 11]


def test_a_request_that_is_alone_is_answered_at_once(devices: tuple[Device, Device]) -> None:
    connection, wire = devices[1].connect()
    receive(connection, _GOOD)
    assert wire.written.startswith(b"HTTP/1.1 200")
