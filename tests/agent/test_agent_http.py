"""The HTTP server of the device, over raw sockets: protocol, limits, deadlines, admission."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeflow_agent import errors
from edgeflow_agent.inference import slot
from edgeflow_agent.inference.http_protocol import Connection
from edgeflow_agent.inference.http_reader import Limits
from edgeflow_agent.inference.known_heads import KnownHeads
from edgeflow_agent.inference.messages import Request, Response
from edgeflow_agent.runtime.serving import ServingThread
from edgeflow_agent.wire.documents import Column, Interface, ModelRef
from tests.agent.conftest import failing, linear, model_bytes, request, settings, wait_for
from tests.agent.served import receive

Serve = Callable[..., ServingThread]


def loaded(path: Path, data: bytes, name: str = "iris", interface: Interface | None = None) -> slot.Serving:
    path.write_bytes(data)
    return slot.load(
        path, model=ModelRef(name=name, version="1"), declared=interface or Interface(), threads=1
    )


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[ServingThread] = []

    def start(data: bytes | None = None, **changes: Any) -> ServingThread:
        model_slot = slot.Slot()
        if data is not None:
            model_slot.swap(loaded(tmp_path / "m.onnx", data))
        server = ServingThread(settings(tmp_path, **changes), model_slot)
        server.slot = model_slot  # type: ignore[attr-defined]
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


class Client:
    def __init__(self, server: ServingThread) -> None:
        host, _, port = server.url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.buffer = b""

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def read(self, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        length = 0 if head_only else int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(lines[0].split()[1]), headers, body

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def closed(self) -> bool:
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


def post(body: bytes, *headers: str, path: str = "/infer") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def test_routes(serve: Serve) -> None:
    server = serve(linear(2))
    assert request(f"{server.url}/health")[0] == 200
    status, model = request(f"{server.url}/model")
    assert (status, model["name"], model["version"]) == (200, "iris", "1")
    assert model["interface"]["inputs"][0]["name"] == "x"
    assert request(f"{server.url}/infer", [1, 2, 3, 4]) == (
        200,
        {"outputs": {"y": [[20.0]]}, "model": {"name": "iris", "version": "1"}},
    )
    status, answer = request(f"{server.url}/infer", [1, 2, 3])
    assert (status, answer["error"]["code"]) == (400, "bad_input")
    assert "[?, 4]" in answer["error"]["message"]
    status, answer = request(f"{server.url}/infer", raw=b"{")
    assert (status, answer["error"]["code"]) == (400, "bad_input")
    assert request(f"{server.url}/nothing")[0] == 404
    assert request(f"{server.url}/infer")[0] == 405
    assert request(f"{server.url}/health", {})[0] == 405
    page = Client(server).send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").read()[2].decode()
    assert 'edgeflow_inference_requests_total{status="ok"} 1' in page
    assert 'edgeflow_inference_requests_total{status="bad_input"} 2' in page
    assert 'edgeflow_model_info{model="iris",version="1",digest=""} 1' in page


def test_labels_and_columns(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    declared = Interface(columns=(Column(name="a"), Column(name="b")), labels=("only",))
    server.slot.swap(loaded(tmp_path / "l.onnx", linear(1, columns=2), interface=declared))  # type: ignore[attr-defined]
    status, answer = request(f"{server.url}/infer", {"a": 1, "b": 2})
    assert (status, answer["outputs"]["y"], answer["labels"]) == (200, [[3.0]], ["only"])


def test_without_a_model(serve: Serve) -> None:
    server = serve()
    assert request(f"{server.url}/infer", [1])[0] == 503
    assert request(f"{server.url}/health") == (503, {"status": "no_model"})
    assert request(f"{server.url}/model")[0] == 404


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    client = Client(serve(linear(1)))
    bodies = [json.dumps([number, 0, 0, 0]).encode() for number in range(200)]
    client.send(b"".join(post(body) for body in bodies))
    for number in range(200):
        status, _, body = client.read()
        assert (status, json.loads(body)["outputs"]["y"]) == (200, [[float(number)]])


def test_a_request_may_come_byte_by_byte(serve: Serve) -> None:
    client = Client(serve(linear(1)))
    for byte in post(b"[1,2,3,4]"):
        client.send(bytes([byte]))
    assert client.read()[0] == 200


def test_chunked_head_expect_and_http_1_0(serve: Serve) -> None:
    server = serve(linear(1))
    client = Client(server)
    head = b"POST /infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + b"5\r\n[1,2,\r\n4\r\n3,4]\r\n0\r\n\r\n")
    assert json.loads(client.read()[2])["outputs"]["y"] == [[10.0]]
    status, headers, _ = client.send(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n").read(head_only=True)
    assert (status, int(headers["content-length"]) > 0) == (200, True)
    client.send(b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    assert client.read()[0] == 100
    assert client.send(b"[1,2,3,4]").read()[0] == 200
    assert client.send(post(b"[1,2,3,4]", "Connection: close")).read()[1]["connection"] == "close"
    assert client.closed()
    old = Client(server).send(b"GET /health HTTP/1.0\r\n\r\n")
    assert old.read()[0] == 200
    assert old.closed()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (
            b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"POST /infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: more\r\n\r\n", 417),
        (b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1100000\r\n\r\n" + b"x" * 1_100_000, 413),
        (
            b"POST /infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 17,
            413,
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 17_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 4000 + b"\r\n", 431),
        (b"GET /" + b"y" * 200_000, 431),
    ],
)
def test_refusals(serve: Serve, data: bytes, status: int) -> None:
    server = serve(linear(1), max_body_mb=1)
    client = Client(server)
    # A sound request first: it is answered before the refusal of the next.
    client.send(GET)
    assert client.read()[0] == 200
    with contextlib.suppress(OSError):
        client.send(data)  # the refusal may come before everything is sent
    got, headers, body = client.read()
    assert got == status
    assert json.loads(body)["error"]["message"]
    assert headers["connection"] == "close"
    client.socket.close()
    assert request(f"{server.url}/health")[0] == 200


def test_body_at_the_limit_is_taken(serve: Serve) -> None:
    server = serve(linear(1), max_body_mb=1)
    body = b"[1,2,3,4]".ljust(1 << 20)
    assert Client(server).send(post(body)).read()[0] == 200
    assert Client(server).send(post(body + b" ")).read()[0] == 413


def test_slow_senders_are_ended(serve: Serve) -> None:
    server = serve(linear(1), header_timeout_s=0.2, body_timeout_s=0.2, idle_timeout_s=0.4)
    head, body, silent, idle = (Client(server) for _ in range(4))
    head.send(b"GET /health HT")
    body.send(b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n[1,")
    idle.send(GET)
    assert idle.read()[0] == 200
    assert head.read()[0] == 408
    assert body.read()[0] == 408
    assert silent.closed()
    assert idle.closed()


def test_too_many_connections(serve: Serve) -> None:
    server = serve(linear(1), max_connections=3)
    clients = [Client(server).send(GET) for _ in range(3)]
    assert [client.read()[0] for client in clients] == [200, 200, 200]
    assert Client(server).read()[0] == 503
    clients[0].socket.close()
    wait_for(lambda: request_or_none(server) == 200, what="room for a new connection")


def request_or_none(server: ServingThread) -> int | None:
    try:
        return request(f"{server.url}/health")[0]
    except OSError:
        return None


class SlowEngine:
    """An engine whose runs wait until they are let go, or end at their deadline."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.go = threading.Event()
        self.output_names = engine.output_names
        self.on_cpu = False

    def run(self, feed: Any, handle: Any) -> Any:
        while not self.go.wait(0.005):
            if handle.terminated:
                from edgeflow_agent.inference.engine import RunTerminatedError

                raise RunTerminatedError("stopped")
        return self._engine.run(feed, handle)


def slow(server: ServingThread) -> SlowEngine:
    import dataclasses

    model_slot: slot.Slot = server.slot  # type: ignore[attr-defined]
    assert model_slot.current is not None
    engine = SlowEngine(model_slot.current.engine)
    model_slot.swap(
        dataclasses.replace(model_slot.current, engine=engine, stats=slot.Stats(1.0))  # type: ignore[arg-type]
    )
    return engine


def test_a_full_queue_answers_429_and_health_stays_free(serve: Serve) -> None:
    server = serve(linear(1), queue=2, max_concurrent=1)
    engine = slow(server)
    waiting = [Client(server).send(post(b"[1,2,3,4]")) for _ in range(3)]
    page = "edgeflow_inference_requests_active 3"
    metrics = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    wait_for(lambda: page in Client(server).send(metrics).read()[2].decode())
    status, headers, _ = Client(server).send(post(b"[1,2,3,4]")).read()
    assert (status, int(headers["retry-after"]) >= 1) == (429, True)
    assert request(f"{server.url}/health")[0] == 200
    engine.go.set()
    assert [client.read()[0] for client in waiting] == [200, 200, 200]


def test_deadline(serve: Serve) -> None:
    server = serve(linear(1), timeout_s=0.2, max_concurrent=1)
    slow(server)
    running, queued = (Client(server).send(post(b"[1,2,3,4]")) for _ in range(2))
    begin = time.monotonic()
    assert (running.read()[0], queued.read()[0]) == (504, 504)
    assert time.monotonic() - begin < 3


def test_a_failing_model_is_500_and_counted(serve: Serve) -> None:
    server = serve(failing())
    status, answer = request(f"{server.url}/infer", [5, 0, 0, 0])
    stats = server.slot.current.stats  # type: ignore[attr-defined]
    assert (status, answer["error"]["code"], stats.errors) == (500, "model_failed", 1)
    assert request(f"{server.url}/infer", [0, 0, 0, 0])[0] == 200
    assert request(f"{server.url}/infer", [0])[0] == 400
    assert (stats.errors, stats.requests) == (1, 2)


def test_a_stop_answers_what_was_asked(serve: Serve) -> None:
    server = serve(linear(1))
    engine = slow(server)
    client = Client(server).send(post(b"[1,2,3,4]"))
    wait_for(lambda: server.slot.current.stats.active == 1)  # type: ignore[attr-defined]
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    engine.go.set()
    assert client.read()[0] == 200
    stopping.join(10)
    with pytest.raises(OSError):
        Client(server).send(GET).read()


def test_a_taken_port_says_what_to_do(serve: Serve, tmp_path: Path) -> None:
    server = serve(linear(1))
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(errors.ConfigError, match="--port"):
        ServingThread(settings(tmp_path, port=port), slot.Slot())


def test_swap_under_load_fails_no_request(serve: Serve, tmp_path: Path) -> None:
    server = serve(linear(1))
    model_slot: slot.Slot = server.slot  # type: ignore[attr-defined]
    candidates = [loaded(tmp_path / f"{n}.onnx", linear(n)) for n in (2, 3)]
    answered = [0, 0, 0, 0]
    failed: list[Any] = []
    stop = threading.Event()

    def load(index: int) -> None:
        client = Client(server)
        while not stop.is_set():
            status, _, body = client.send(post(b"[1,1,1,1]")).read()
            if status != 200 or json.loads(body)["outputs"]["y"][0][0] not in (4.0, 8.0, 12.0):
                failed.append((status, body))
            answered[index] += 1

    threads = [threading.Thread(target=load, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    swaps = 0
    while sum(answered) < 8000 and all(thread.is_alive() for thread in threads):
        model_slot.swap(candidates[swaps % 2])
        model_slot.release_previous()
        swaps += 1
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not failed
    assert sum(answered) >= 8000
    assert swaps > 50


def counting() -> bytes:
    """A loop of as many turns as the caller says: fast for the warm-up, endless for a large number."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            helper.make_node("Add", ["v_in", "v_in"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.INT64, [1]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["n"], ["turns"]),
            helper.make_node("Loop", ["turns", "yes", "n"], ["y"], body=body),
        ],
        "counting",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1])],
        [numpy_helper.from_array(np.array(True), "yes")],
    )
    return model_bytes(graph)


def test_an_endless_run_in_the_event_loop_is_stopped(serve: Serve) -> None:
    server = serve(counting(), timeout_s=0.3)
    assert request(f"{server.url}/infer", [1])[1]["outputs"]["y"] == [2]
    assert server.slot.current.stats.run_s < 300e-6  # type: ignore[attr-defined]
    for _ in range(2):
        assert request(f"{server.url}/infer", [2**40])[0] == 504
        assert request(f"{server.url}/infer", [1])[0] == 200


class NoTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.shut = False

    def write(self, data: Any) -> None:
        assert not self.shut
        self.sent += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.shut = True

    def close(self) -> None:
        self.shut = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


PIECES = st.sampled_from(
    [
        GET,
        post(b"[1,2,3,4]"),
        b"POST /infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1,2,\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n",
        b"\n",
        b"GET ",
        b"Expect: 100-continue\r\n",
        b"Content-Length: 3\r\n",
        b"\0",
    ]
)


@given(st.lists(PIECES | st.binary(max_size=30), max_size=8), st.integers(1, 50))
def test_no_bytes_break_a_connection(pieces: list[bytes], step: int) -> None:
    asked: list[Request] = []

    def app(asked_for: Request, deliver: Any) -> Response:
        asked.append(asked_for)
        return Response(200, b"{}")

    buffer = memoryview(bytearray(64))
    connection = Connection(app, Limits(max_body=1000), set(), KnownHeads(), buffer)
    transport = NoTransport()
    connection.connection_made(transport)
    data = b"".join(pieces)
    for start in range(0, len(data), step):
        receive(connection, data[start : start + step])
        connection.sweep(time.monotonic())
    connection.sweep(time.monotonic() + 1000)
    assert transport.shut or not data or asked
    assert transport.sent.count(b"HTTP/1.1 200") == len(asked)
    connection.eof_received()
    connection.connection_lost(None)
