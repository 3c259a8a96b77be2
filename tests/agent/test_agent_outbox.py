"""Answers that go out together are the answers that would have gone out one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent.inference import outbox
from edgeflow_agent.inference.http_protocol import Connection
from edgeflow_agent.inference.http_reader import Limits
from edgeflow_agent.inference.known_heads import KnownHeads
from edgeflow_agent.inference.messages import Request, Response
from tests.agent.test_agent_hot_path import Wire, receive
from tests.agent.turns import Turns

ASKED = b"POST /infer HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
PIECES = st.sampled_from(
    [
        ASKED,
        ASKED * 3,
        ASKED[:20],
        ASKED[20:],
        ASKED.replace(b"Host", b"Connection: close\r\nHost"),
        b"POST /infer HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        b"abc",
        b"nonsense\r\n\r\n",
        b"",  # the client sends no more
    ]
)


def talk(turns: Sequence[Sequence[bytes]], *, together: bool) -> list[tuple[bytes, bool]]:
    """What each connection was answered, and whether it was closed. In each turn some of them are sent
    something."""

    def app(request: Request, _deliver: object) -> Response:
        return Response(200, request.text + b"!")

    loop, heads, place = Turns(), KnownHeads(), memoryview(bytearray(4096))
    shared = loop.outbox()
    wires, connections = [], []
    for _ in range(3):
        own = shared if together else Turns().outbox()  # whose turns are empty
        connections.append(Connection(app, Limits(max_head=2000), set(), heads, place, own))
        wires.append(Wire())
        connections[-1].connection_made(wires[-1])
    for pieces in turns:
        for connection, piece in zip(connections, pieces, strict=True):
            if piece:
                loop.call_soon(lambda connection=connection, piece=piece: receive(connection, piece))
            else:
                loop.call_soon(connection.eof_received)
        loop.turn()
    for connection in connections:
        connection.stop()
    loop.turn()
    return [(wire.written, wire.closed) for wire in wires]


@given(st.lists(st.tuples(PIECES, PIECES, PIECES), max_size=5))
def test_together_and_one_by_one_say_the_same(turns: list[tuple[bytes, bytes, bytes]]) -> None:
    assert talk(turns, together=True) == talk(turns, together=False)


def test_who_asks_in_one_turn_is_answered_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, wires = Turns(), [Wire() for _ in range(4)]
    shared = loop.outbox()
    told: list[int] = []

    def answer(number: int) -> None:
        shared.send(wires[number], b"x")
        told.append(sum(bool(wire.written) for wire in wires))

    for number in range(4):
        loop.call_soon(lambda number=number: answer(number))
    loop.turn()
    assert told == [0, 0, 0, 4]
    loop.turn()  # nothing is said twice
    assert [wire.written for wire in wires] == [b"x"] * 4
    monkeypatch.setattr(outbox, "_SHORT", 2)
    loop.call_soon(lambda: shared.send(wires[0], b"short"[:2]))
    loop.call_soon(lambda: shared.send(wires[1], b"long"))
    loop.call_soon(lambda: told.append(len(wires[1].written)))
    loop.turn()
    assert told[-1] == len(b"xlong")  # a client that does not read is noticed at once
    assert wires[0].written == b"xsh"
