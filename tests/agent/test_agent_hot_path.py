"""The short ways of the hot path give what the long ways give, or leave the work to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from edgeflow_agent import errors
from edgeflow_agent.inference import http_reader, tensors
from edgeflow_agent.inference.http_protocol import Connection
from edgeflow_agent.inference.http_reader import Limits
from edgeflow_agent.inference.known_heads import KnownHeads
from edgeflow_agent.inference.messages import Request, Response
from edgeflow_agent.inference.protocols import quick
from edgeflow_agent.wire.documents import Column, Interface, TensorSpec
from tests.agent.served import receive

# ---- heads


class _Forgetful(KnownHeads):
    """Knows nothing: every head goes to the parser."""

    def find(self, data: bytes) -> None:
        return None


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:  # as a transport does
            self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False


def talk(
    heads: KnownHeads, parts: Sequence[bytes], *, large: int = 1 << 20
) -> tuple[list[Request], bytes, bool]:
    """The requests that a connection makes of these bytes, what it answers, and whether it closes. Of a body
    of which `large` bytes are missing the rest does not go through the parser."""
    seen: list[Request] = []

    def app(request: Request, _deliver: object) -> Response:
        seen.append(structs.replace(request, body=request.text))
        return Response(200, request.text)

    wire = Wire()
    buffer = memoryview(bytearray(4096))
    with mock.patch.object(http_reader, "LARGE", large):
        connection = Connection(app, Limits(max_head=2000, max_body=2000), set(), heads, buffer)
        connection.connection_made(wire)
        for part in parts:
            receive(connection, part)
    return seen, wire.written, wire.closed


_heads = st.builds(
    lambda method, target, extra, end: b"%s %s HTTP/1.1\r\n%s%s" % (method, target, b"".join(extra), end),
    st.sampled_from([b"POST", b"GET", b"PUT", b"HEAD"]),
    st.sampled_from([b"/infer", b"/infer?outputs=true", b"/v2/models/m/infer"]),
    st.lists(
        st.sampled_from(
            [
                b"Host: a\r\n",
                b"Content-Type: application/json\r\n",
                b"Content-Length: 3\r\n",
                b"Content-Length: 9\r\n",
                b"Content-Length: 0\r\n",
                b"Connection: close\r\n",
                b"Expect: 100-continue\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Accept-Encoding: gzip\r\n",
                b"X: " + b"y" * 1100 + b"\r\n",
            ]
        ),
        max_size=4,
    ),
    st.sampled_from([b"\r\n", b"\r\n", b"\n"]),
)
_messages = st.builds(
    lambda head, body: head + body,
    _heads,
    st.sampled_from([b"", b"abc", b"abcd", b"abcdefghi", b"3\r\nabc\r\n0\r\n\r\n"]),
)
_NINE = b"POST /infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabcdefghi"
_ONE = b"POST /infer HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


@given(st.lists(_messages, min_size=1, max_size=3), st.integers(1, 3), st.data())
@example([_ONE], 3, None)
@example([_NINE[:-6], _NINE[-6:]], 3, None)
def test_a_known_head_is_read_as_the_parser_reads_it(
    messages: list[bytes], times: int, data: st.DataObject | None
) -> None:
    stream = messages * times
    if data is not None and data.draw(st.booleans()):
        whole = b"".join(stream)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
        stream = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b]
    expected = talk(_Forgetful(), stream)
    assert talk(KnownHeads(), stream) == expected
    # ... and what is missing of a body is read as the parser reads it.
    assert talk(_Forgetful(), stream, large=3) == expected
    assert talk(KnownHeads(), stream, large=3) == expected


def test_the_second_time_a_head_is_known() -> None:
    heads = KnownHeads()
    assert heads.find(_ONE) is None
    talk(heads, [_ONE])
    head = Request(b"POST", b"/infer", b"", {}, b"")
    assert heads.find(_ONE.replace(b"abc", b"xyz")) == (head, 3, len(_ONE) - 3)
    for other in (b" " + _ONE, _ONE.replace(b"3", b"4")):
        assert heads.find(other) is None, other


@pytest.mark.parametrize("heads", [KnownHeads(), _Forgetful()])
def test_a_body_that_goes_to_its_place_takes_memory_only_as_it_comes(heads: KnownHeads) -> None:
    size = 1 << 36  # more than there is
    reader = http_reader.RequestReader(
        Limits(max_body=size), heads, memoryview(bytearray(4096)), lambda: None
    )
    head = b"POST /infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    for part in (head, b"abc"):
        reader.place[: len(part)] = part
        reader.receive(len(part))
    assert (reader.phase, len(reader.requests)) == ("body", 0)
    assert reader.refusal is not None or len(reader.place) == size - 3


def test_known_heads_are_bounded() -> None:
    heads = KnownHeads()
    for number in range(1000):
        talk(heads, [_ONE.replace(b"Host: a", b"Host: a%d" % number)])
    assert len(heads._requests) <= 128


# ---- numbers


def interface(
    kind: str = "tensor(float)", width: int = 3, *, columns: Sequence[str] = ("a", "b c", "é")
) -> Interface:
    return Interface(
        inputs=(TensorSpec(name="x", dtype=kind, shape=("n", width)),),
        columns=tuple(Column(name=name) for name in columns),
    )


_number = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e39, -1e39]),
)
_odd = st.one_of(st.none(), st.booleans(), st.text(max_size=2), st.lists(_number, max_size=2))
_row = st.lists(_number, min_size=3, max_size=3) | st.lists(st.one_of(_number, _odd), max_size=4)
_rows = st.lists(_row, max_size=3)
_record = st.dictionaries(
    st.sampled_from(["a", "b c", "é", "x", "inputs"]), st.one_of(_number, _odd), max_size=4
)
_body = st.one_of(
    _row,
    _rows,
    _record,
    st.lists(_record, max_size=2),
    st.fixed_dictionaries({"inputs": st.one_of(_rows, _row, st.fixed_dictionaries({"x": _rows}), _record)}),
)


@given(_body, st.sampled_from(["tensor(float)", "tensor(double)"]))
@example([[1, 2, 3]], "tensor(float)")
@example({"inputs": {"x": [[1, 2, 3]]}}, "tensor(double)")
@example({"a": 1, "b c": 2.5, "é": 3}, "tensor(float)")
@example([3.4028236e38, 0, 0], "tensor(float)")
def test_the_short_way_gives_the_same_feed(value: object, kind: str) -> None:
    spec = interface(kind)
    body = json.dumps(value).encode()
    short = quick.plan(spec)(body)
    if short is None:
        return
    long = tensors.decode(tensors.parse(body), spec)
    assert short.keys() == long.keys()
    np.testing.assert_array_equal(short["x"], long["x"])
    assert (short["x"].dtype, short["x"].shape) == (long["x"].dtype, long["x"].shape)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        [[1, 2, 3], [4, 5, 6]],
        {"a": 1, "b c": 2, "é": 3},
        {"inputs": [[1, 2, 3]]},
        {"inputs": {"x": [[1, 2, 3]]}},
    ],
)
def test_what_most_requests_are_takes_the_short_way(value: object) -> None:
    assert (
        quick.plan(interface())(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        is not None
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"[", b"[[1,2],[3]]", b"[1,2]", b"[1,2,1e400]", b'{"a":1}', b"\xff", b"[" * 5000],
)
def test_what_is_odd_takes_the_long_way(body: bytes) -> None:
    assert quick.plan(interface())(body) is None
    with pytest.raises(errors.InputError):
        tensors.decode(tensors.parse(body), interface())


_cubes = st.recursive(_number, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=12)


@given(_cubes, st.sampled_from([("n", "m"), ("n", 1, "k"), ("n", 2, 1, 3)]), st.sampled_from([0, 10**6]))
@example([[[1], [2]]], ("n", 1, "k"), 0)
@example([[[1, 2], [3, 4]], [[5, 6], [7]]], ("n", "m", "k"), 0)
@example([[[1, 2], [3, 4]], [[5, 6]]], ("n", "m", "k"), 0)
@example([[[0.1, 3.4028234663852886e38, -1e-46]]], ("n", "m", "k"), 0)
def test_the_short_way_gives_the_same_feed_at_any_rank(
    value: object, shape: tuple[int | str, ...], packed_from: int
) -> None:
    spec = Interface(inputs=(TensorSpec(name="x", dtype="tensor(float)", shape=shape),))
    body = json.dumps(value).encode()
    with mock.patch.object(quick, "_LONG", packed_from):
        short = quick.plan(spec)(memoryview(body))  # as a large one comes
    if short is not None:
        long = tensors.decode(tensors.parse(body), spec)
        np.testing.assert_array_equal(short["x"], long["x"])
        assert short["x"].shape == long["x"].shape


@pytest.mark.parametrize(
    "spec",
    [
        Interface(),
        interface("tensor(int64)"),
        Interface(inputs=(TensorSpec(name="x", dtype="tensor(float)", shape=(3,)),)),
        Interface(inputs=(TensorSpec(name="x", dtype="tensor(float)", shape=(2, 3)),)),
        Interface(inputs=(TensorSpec(name="inputs", dtype="tensor(float)", shape=("n", 3)),)),
    ],
)
def test_other_models_have_no_short_way(spec: Interface) -> None:
    assert quick.plan(spec)(b"[[1,2,3]]") is None
