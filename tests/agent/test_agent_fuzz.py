"""Mutated requests, in bodies and in bytes, against the agent as a process of its own.

What must hold: it lives, it answers every sound request, it never blames itself for what others sent, and
its memory stays. The short run is part of every test run, the long one of `make test-slow`.
"""

from __future__ import annotations

import collections
import gzip
import json
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from onnx import TensorProto, helper

from tests.agent.conftest import model_bytes

HANGS_AFTER_S = 15.0
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z]")
# A transfer coding that is not implemented; by RFC 9112 that is no failure of the server.
NOT_OURS = {501}


def model() -> bytes:
    """Answers what it is given, of three types, so that whatever is accepted can be answered."""
    shapes: dict[str, tuple[int, list[Any]]] = {
        "f": (TensorProto.FLOAT, [None, 2]),
        "i": (TensorProto.INT64, [None]),
        "s": (TensorProto.STRING, [None]),
    }
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [name.upper()]) for name in shapes],
        "echo",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in shapes.items()],
        [helper.make_tensor_value_info(name.upper(), kind, shape) for name, (kind, shape) in shapes.items()],
    )
    return model_bytes(graph)


class Sent(NamedTuple):
    method: bytes
    path: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def framed(self) -> bytes:
        lines = [b"%s %s HTTP/1.1" % (self.method, self.path), b"Host: x"]
        lines += [b"%s: %s" % item for item in self.headers]
        lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


def tensor(name: str, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def bases() -> list[Sent]:
    inputs = {"f": [[1.5, 2.5], [0.0, -1.0]], "i": [1, -(2**60)], "s": ["a", "\u00e9"]}
    plain = json.dumps({"inputs": inputs}).encode()
    described = [
        tensor("f", "FP32", [2, 2], data=[1, 2, 3, 4]),
        tensor("i", "INT64", [2], data=[5, 6]),
        tensor("s", "BYTES", [2], data=["a", "b"]),
    ]
    open_json = json.dumps({"id": "1", "inputs": described, "outputs": [{"name": "F"}]}).encode()
    blobs = [struct.pack("<4f", 1, 2, 3, 4), struct.pack("<2q", 5, 6), b"\1\0\0\0a\2\0\0\0bc"]
    announced = [
        {key: value for key, value in item.items() if key != "data"}
        | {"parameters": {"binary_data_size": len(blob)}}
        for item, blob in zip(described, blobs, strict=True)
    ]
    header = json.dumps({"inputs": announced, "parameters": {"binary_data_output": True}}).encode()
    length = (b"Inference-Header-Content-Length", b"%d" % len(header))
    rows = [{"f": 1, "i": 2, "s": "x"}]
    table = {"columns": ["f", "i", "s"], "data": [[[1.0, 2.0], 2, "x"], [[3.0, 4.0], 5, "y"]]}
    json_type = (b"Content-Type", b"application/json")
    sent = [
        Sent(b"POST", b"/infer", [json_type], plain),
        Sent(b"POST", b"/infer?outputs=true", [(b"Content-Encoding", b"gzip")], gzip.compress(plain)),
        Sent(b"POST", b"/infer?shape=2,2", [(b"Content-Type", b"application/octet-stream")], blobs[0]),
        Sent(b"POST", b"/infer", [(b"Content-Type", b"image/png")], b"\x89PNG\r\n\x1a\n"),
        Sent(b"POST", b"/v2/models/echo/infer", [], open_json),
        Sent(b"POST", b"/v2/models/echo/infer", [length], header + b"".join(blobs)),
        Sent(
            b"POST",
            b"/v2/models/echo/infer",
            [length, (b"Content-Encoding", b"gzip"), (b"Accept-Encoding", b"gzip")],
            gzip.compress(header + b"".join(blobs)),
        ),
        Sent(b"POST", b"/invocations", [json_type], json.dumps({"dataframe_split": table}).encode()),
        Sent(b"POST", b"/invocations", [json_type], json.dumps({"dataframe_records": rows}).encode()),
        Sent(b"POST", b"/invocations", [json_type], plain),
        Sent(b"POST", b"/invocations", [json_type], json.dumps({"instances": rows * 3}).encode()),
        Sent(b"POST", b"/invocations", [(b"Content-Type", b"text/csv")], b"f,i,s\n1,2,a\n3,4,b\n"),
        Sent(b"POST", b"/v2/repository/index", [], b"{}"),
        Sent(b"OPTIONS", b"/infer", [], b""),
    ]
    return sent + [
        Sent(b"GET", path, [(b"Accept-Encoding", b"gzip, deflate")], b"")
        for path in (
            b"/health",
            b"/model",
            b"/metrics",
            b"/ping",
            b"/version",
            b"/v2",
            b"/v2/models/echo",
            b"/v2/models/echo/config",
            b"/v2/models/echo/stats",
            b"/v2/models/stats",
        )
    ]


STRANGE: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**63) - 1, 2**64, 10**40, 1e308, 1e-320, float("nan"),
    float("inf"), "", "a", "\0", "\ud800", "NaN", [], [[]], [[], []], {}, {"": 0},
    {"shape": [0, 2], "data": []}, {"shape": [2**40, 0], "data": []}, {"data": 1, "shape": None},
    [[1, 2], [3]], [[[[[1]]]]], ["a", 1],
]  # fmt: skip
TOKENS = [
    b"\0", b"\r\n", b"\n", b"\r\n\r\n", b'"', b"[", b"]" * 9, b"{" * 40, b"[" * 3000, b"NaN", b"-Infinity",
    b"1e999", b"9" * 400, b"\\ud800", b"\xff\xfe", b"\xef\xbb\xbf", b",,,", b"Content-Length: 5\r\n",
    b"GET / HTTP/1.1\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
]  # fmt: skip
HEADERS = [
    (b"Content-Type", b"text/csv"), (b"Content-Type", b"application/octet-stream"),
    (b"Content-Type", b"x" * 300),
    (b"Content-Type", b"image/jpeg"), (b"Content-Type", b"\xff;;=,"), (b"Content-Encoding", b"deflate"),
    (b"Content-Encoding", b"gzip"), (b"Content-Encoding", b"br"), (b"Accept-Encoding", b"*;q=x,,;q=1"),
    (b"Inference-Header-Content-Length", b"0"), (b"Inference-Header-Content-Length", b"7"),
    (b"Inference-Header-Content-Length", b"99999999999999999999"), (b"Tensor-Shape", b"2,2"),
    (b"Tensor-Shape", b"[9999999999999, 0]"), (b"Expect", b"100-continue"),
]  # fmt: skip
PATHS = [
    b"/v2/models/%ff/infer",
    b"/v2/models/echo/versions/9/infer",
    b"/infer?shape=,,&shape=%00",
    b"/?" + b"&" * 99,
]


def strange_json(chance: random.Random, value: Any, depth: int = 0) -> Any:
    """The value with one place in it replaced, left out or doubled."""
    if depth and chance.random() < 0.25:
        return chance.choice(STRANGE)
    if isinstance(value, dict) and value:
        key = chance.choice(list(value))
        changed = dict(value)
        how = chance.random()
        if how < 0.1:
            del changed[key]
        elif how < 0.2:
            changed[chance.choice(["", "inputs", "shape", key + "x"])] = changed.pop(key)
        else:
            changed[key] = strange_json(chance, value[key], depth + 1)
        return changed
    if isinstance(value, list) and value:
        place = chance.randrange(len(value))
        changed_list = list(value)
        if chance.random() < 0.15:
            changed_list *= chance.choice([0, 2, 50])
        else:
            changed_list[place] = strange_json(chance, value[place], depth + 1)
        return changed_list
    return chance.choice(STRANGE)


def mutated_bytes(chance: random.Random, data: bytes) -> bytes:
    mutable = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(len(mutable) + 1)
        how = chance.random()
        if how < 0.35 and place < len(mutable):
            mutable[place] = chance.randrange(256)
        elif how < 0.55:
            del mutable[place : place + chance.choice([1, 2, 8, 64])]
        elif how < 0.8:
            mutable[place:place] = chance.choice(TOKENS)
        else:
            mutable[place:place] = mutable[chance.randrange(len(mutable) + 1) :][: chance.choice([1, 8, 100])]
    return bytes(mutable)


def mutated(chance: random.Random, sent: Sent) -> Sent:
    """A request that is framed soundly, with something else in it than was meant."""
    method, path, headers, body = sent
    how = chance.random()
    if how < 0.45 and body[:1] == b"{":
        end = body.rindex(b"}") + 1
        try:
            value = strange_json(chance, json.loads(body[:end]))
        except ValueError:
            value = None
        changed = json.dumps(value).encode()
        # The length that is said of the JSON is mostly kept sound, so that the bytes are looked at.
        if chance.random() < 0.8:
            headers = [
                (name, b"%d" % len(changed) if name.startswith(b"Inference") else said)
                for name, said in headers
            ]
        body = changed + body[end:]
    elif how < 0.75 and body:
        body = mutated_bytes(chance, body)
        if chance.random() < 0.3 and any(name == b"Content-Encoding" for name, _ in headers):
            body = gzip.compress(mutated_bytes(chance, gzip.decompress(sent.body)))
    elif how < 0.9:
        headers = [*headers, chance.choice(HEADERS)]
    elif how < 0.97:
        path = chance.choice([*PATHS, *(item.path for item in bases())])
    else:
        method = chance.choice([b"PUT", b"DELETE", b"PATCH", b"TRACE", b"OPTIONS", b"POST", b"GET"])
    return Sent(method, path, headers, body)


class Fuzzer(threading.Thread):
    """One client. Soundly framed requests go over a connection that stays, several at a time; mutated bytes
    over one of their own, which ends with them."""

    def __init__(self, address: tuple[str, int], seed: int, requests: int) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._seed = seed
        self._left = requests
        self._bases = bases()
        self._socket: socket.socket | None = None
        self._buffer = b""
        self.statuses: collections.Counter[int] = collections.Counter()
        self.sent = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        chance = random.Random(self._seed)
        while self._left > 0 and len(self.wrong) < 5:
            try:
                if chance.random() < 0.3:
                    self._bytes(chance)
                else:
                    self._framed(chance)
            except Exception as error:  # noqa: BLE001 - it is what the test is about
                self.wrong.append(f"{type(error).__name__}: {error}")
                self._socket = None

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=HANGS_AFTER_S)

    def _framed(self, chance: random.Random) -> None:
        batch = [mutated(chance, chance.choice(self._bases)) for _ in range(chance.choice([1, 1, 1, 3, 8]))]
        batch = [
            item for item in batch if (b"Expect", b"100-continue") not in item.headers or len(batch) == 1
        ]
        if not batch:
            return
        if self._socket is None:
            self._socket, self._buffer = self._connect(), b""
        data = b"".join(item.framed() for item in batch)
        cut = chance.randrange(len(data)) if chance.random() < 0.1 else len(data)
        self._socket.sendall(data[:cut])
        self._socket.sendall(data[cut:])
        self._count(len(batch))
        for item in batch:
            status, closes, body = self._answer()
            while status == 100:
                status, closes, body = self._answer()
            self._judge(status, item.framed(), body)
            if closes:
                self._socket = None
                return

    def _answer(self) -> tuple[int, bool, bytes]:
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b"HTTP/1.1 100" in head:
            return 100, False, b""
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        while len(self._buffer) < length:
            self._read()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        if b"Content-Encoding: gzip" in head:
            body = gzip.decompress(body)
        return int(head.split()[1]), b"Connection: close" in head, body

    def _read(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(1 << 20)
        if not data:
            raise EOFError("the connection ended without an answer")
        self._buffer += data

    def _bytes(self, chance: random.Random) -> None:
        data = b"".join(chance.choice(self._bases).framed() for _ in range(chance.choice([1, 1, 3])))
        data = mutated_bytes(chance, data)
        self._count(1)
        answered = b""
        with self._connect() as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(1 << 20):
                    answered += part
            except (ConnectionResetError, BrokenPipeError):
                pass  # refused before everything was sent
        for status in STATUS.findall(answered):
            self._judge(int(status), data, answered)

    def _count(self, number: int) -> None:
        self.sent += number
        self._left -= number

    def _judge(self, status: int, data: bytes, answer: bytes) -> None:
        self.statuses[status] += 1
        if status >= 500 and status not in NOT_OURS:
            self.wrong.append(f"{status} {answer[:300]!r} to {data[:2000]!r}")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[psutil.Process, tuple[str, int]]]:
    path = tmp_path / "echo.onnx"
    path.write_bytes(model())
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeflow_agent.cli", "serve", str(path), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        host, port = re.search(r"http://([\d.]+):(\d+)", line).groups()  # type: ignore[union-attr]
        yield psutil.Process(process.pid), (host, int(port))
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


def fuzz(
    agent: tuple[psutil.Process, tuple[str, int]], requests: int, *, clients: int = 4
) -> tuple[collections.Counter[int], float]:
    """Statuses, and the growth of the agent's memory in MiB between the first quarter and the end."""
    process, address = agent
    fuzzers = [Fuzzer(address, seed, requests // clients) for seed in range(clients)]
    for fuzzer in fuzzers:
        fuzzer.start()
    early = 0
    while any(fuzzer.is_alive() for fuzzer in fuzzers):
        time.sleep(0.05)
        if not early and sum(fuzzer.sent for fuzzer in fuzzers) > requests / 4:
            early = process.memory_info().rss
    wrong = [text for fuzzer in fuzzers for text in fuzzer.wrong]
    assert wrong == []
    assert process.is_running()
    sound = Fuzzer(address, 0, 1)
    for sent in bases():
        with sound._connect() as connection:
            connection.sendall(sent.framed())
            assert STATUS.match(connection.recv(1 << 20))
    grown = (process.memory_info().rss - early) / (1 << 20)
    statuses = sum((fuzzer.statuses for fuzzer in fuzzers), collections.Counter())
    sent_in_all = sum(fuzzer.sent for fuzzer in fuzzers)
    print(f"\n{sent_in_all} requests, answers {dict(sorted(statuses.items()))}, {grown:+.1f} MiB")  # noqa: T201
    assert statuses[200] > requests / 20
    assert statuses[400] > requests / 20
    return statuses, grown


@pytest.mark.timeout(60)
def test_a_few_thousand_mutated_requests(agent: tuple[psutil.Process, tuple[str, int]]) -> None:
    fuzz(agent, 4000)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_mutated_requests(agent: tuple[psutil.Process, tuple[str, int]]) -> None:
    _, grown = fuzz(agent, 120_000)
    assert grown < 8
