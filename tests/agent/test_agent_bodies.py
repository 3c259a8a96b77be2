"""What a request may carry and how its answer comes: codings, raw tensors, images, methods, targets."""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeflow_agent import errors
from edgeflow_agent.inference import compression
from edgeflow_agent.inference.messages import Request
from edgeflow_agent.inference.protocols import frames, raw
from edgeflow_agent.steps import Pipeline
from edgeflow_agent.steps.flow import Feed
from edgeflow_agent.wire.documents import Column, Interface, TensorSpec
from tests.agent.conftest import linear, model_bytes
from tests.agent.served import Client, Served

OCTETS = "application/octet-stream"
LIMIT_MB = 1


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served"), max_body_mb=LIMIT_MB) as server:
        yield server


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


def gzipped(data: bytes) -> bytes:
    # Without the second in which it was packed: it would stand in the names of tests, which two processes
    # must collect alike.
    return gzip.compress(data, mtime=0)


BODY = b"[1, 2, 3, 4]"
PACKED = [
    ("gzip", gzipped(BODY)),
    ("GZIP", gzipped(BODY)),
    ("x-gzip", gzipped(BODY)),
    ("deflate", zlib.compress(BODY)),
    ("deflate", raw_deflate(BODY)),
    ("identity", BODY),
]


@pytest.mark.parametrize(("coding", "body"), PACKED, ids=[item[0] for item in PACKED])
@pytest.mark.parametrize("path", ["/infer", "/v2/models/m/infer", "/invocations"])
def test_bodies_may_come_packed(served: Served, coding: str, body: bytes, path: str) -> None:
    served.load(linear(1))
    status, _, answer = Client(served).post(path, body, Content_Encoding=coding)
    assert status == (200 if path == "/infer" else 400), answer  # unpacked, but of another protocol
    assert b"unpack" not in answer


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", b"x", 415),
        ("gzip, gzip", gzipped(gzipped(BODY)), 415),
        ("gzip", BODY, 400),
        ("gzip", b"", 400),
        ("deflate", b"", 400),
        ("deflate", b"\xff\xff", 400),
        ("gzip", gzipped(BODY)[:-3], 400),
        ("gzip", gzipped(BODY) + b"x", 400),
        ("gzip", gzipped(BODY) * 2, 400),
        ("gzip", gzipped(b" " * (LIMIT_MB << 20) + b"1"), 413),
        ("deflate", zlib.compress(b" " * (500 << 20)), 413),
    ],
)
def test_broken_and_unknown_codings_and_bombs(served: Served, coding: str, body: bytes, status: int) -> None:
    served.load(linear(1))
    for path in ("/infer", "/v2/models/m/infer", "/invocations"):
        got, headers, answer = Client(served).post(path, body, Content_Encoding=coding)
        assert (got, headers["Content-Type"]) == (status, "application/json"), answer
        assert (headers.get("Accept-Encoding") == "gzip, deflate") == (status == 415)


def test_an_unpacked_body_may_reach_the_limit(served: Served) -> None:
    served.load(linear(1))
    body = gzip.compress(BODY.ljust(LIMIT_MB << 20))
    assert Client(served).post("/infer", body, Content_Encoding="gzip")[0] == 200


@given(st.binary(max_size=200), st.sampled_from([b"gzip", b"deflate", b"x-gzip"]), st.booleans())
def test_any_packed_body_is_unpacked_or_refused(data: bytes, coding: bytes, broken: bool) -> None:
    packed = gzip.compress(data) if b"gzip" in coding else zlib.compress(data)
    body = packed[: len(data)] if broken else packed
    request = Request(b"POST", b"/infer", b"", {b"content-encoding": coding}, body)
    if broken and body != packed:
        with pytest.raises(errors.InputError):
            compression.unpacked(request, 1000)
    else:
        assert compression.unpacked(request, 1000) == data


def typed(kind: int, shape: list[Any]) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    return model_bytes(graph)


@pytest.mark.parametrize(
    ("shape", "query", "header", "size", "status"),
    [
        ([2, 3], "", "", 6, 200),
        ([None, 3], "", "", 6, 200),
        ([None, 3], "", "", 0, 200),
        ([None, 3], "", "", 7, 400),
        ([2, 3], "", "", 5, 400),
        ([None, None], "", "", 6, 400),
        ([None, None], "?shape=2,3", "", 6, 200),
        ([None, None], "?shape=[2,%203]", "", 6, 200),
        ([None, None], "", "2, 3", 6, 200),
        ([None, None], "?shape=3,2", "2,3", 6, 200),
        ([None, None], "?shape=2,4", "", 6, 400),
        ([None, None], "?shape=6", "", 6, 400),
        ([None, None], "?shape=-2,-3", "", 6, 400),
        ([None, None], "?shape=2,x", "", 6, 400),
        ([None, None], "?shape=0,1000", "", 0, 200),
        ([None, None], "?shape=" + "9" * 9 + ",0", "", 0, 400),
        ([None, None], "?shape=" + "9" * 18 + ",0", "", 0, 400),
        ([None, None], "?shape=" + "9" * 30, "", 6, 400),
        ([None, 3], "?shape=2,4", "", 8, 400),
        ([], "", "", 1, 200),
        ([], "", "", 2, 400),
    ],
)
def test_raw_tensors(
    served: Served, shape: list[Any], query: str, header: str, size: int, status: int
) -> None:
    served.load(typed(TensorProto.FLOAT, shape))
    values = np.arange(size, dtype="<f4")
    headers = {"Content-Type": OCTETS, **({"Tensor-Shape": header} if header else {})}
    got, _, answer = Client(served).ask("POST", f"/infer{query}", values.tobytes(), headers)
    assert got == status, answer
    if status == 200:
        assert np.ravel(json.loads(answer)["outputs"]["y"]).tolist() == values.tolist()
        assert Client(served).ask("POST", f"/infer{query}", values.tobytes() + b"x", headers)[0] == 400


def test_raw_booleans_strings_and_several_inputs(served: Served) -> None:
    client = Client(served)
    served.load(typed(TensorProto.BOOL, [None]))
    assert json.loads(client.post("/infer", b"\0\1", Content_Type=OCTETS)[2])["outputs"]["y"] == [False, True]
    assert client.post("/infer", b"\0\2", Content_Type=OCTETS)[0] == 400
    served.load(typed(TensorProto.STRING, [None]))
    assert client.post("/infer", b"ab", Content_Type=OCTETS)[0] == 400
    interface = Interface(inputs=tuple(TensorSpec(name=name, dtype="tensor(float)") for name in "ab"))
    with pytest.raises(errors.InputError, match="one input"):
        raw.decode(b"1234", interface, "")


class Doubling(Pipeline):
    """Takes one number or the bytes of an image, and says which, and the sum of the outputs."""

    def __init__(self, *, image: bool, answer: bool) -> None:
        super().__init__()
        self.takes_input, self.takes_image, self.gives_answer = True, image, answer

    def before(self, value: Any) -> Feed:
        if isinstance(value, bytes):
            value = len(value)
        if not isinstance(value, int):
            raise errors.InputError("before[0]: no number")
        feed = Feed()
        feed["x"] = np.full((1, 4), value, np.float32)
        return feed

    def after(self, outputs: Mapping[str, Any], feed: Feed | None = None) -> Any:
        assert feed is not None
        return {"sum": float(outputs["y"].sum()), "of": float(feed["x"][0, 0])}


def test_steps_of_a_model(served: Served) -> None:
    plain = served.load(linear(1))
    client = Client(served)
    for kind in ("image/jpeg", "image/png"):
        status, _, answer = client.post("/infer", b"12345", Content_Type=kind)
        assert (status, b"steps" in answer) == (415, True)
    served.slot.swap(dataclasses.replace(plain, steps=Doubling(image=True, answer=True)))
    name = {"name": "m", "version": "1"}
    result = {"sum": 20.0, "of": 5.0}
    for body, kind in ((b"5", "application/json"), (b"abcde", "image/png"), (b"abcde", OCTETS)):
        status, _, answer = client.post("/infer", body, Content_Type=kind)
        assert (status, json.loads(answer)) == (200, {"result": result, "model": name})
    _, _, answer = client.post("/infer?outputs=true", b"5")
    assert json.loads(answer) == {"result": result, "outputs": {"y": [[20.0]]}, "model": name}
    status, _, answer = client.post("/infer", b'"five"')
    assert (status, "no number" in json.loads(answer)["error"]["message"]) == (400, True)
    status, _, answer = client.post("/invocations", b'{"inputs": 5}')
    assert json.loads(answer) == {"predictions": result}
    served.slot.swap(dataclasses.replace(plain, steps=Doubling(image=False, answer=False)))
    assert json.loads(client.post("/infer", b"5")[2]) == {"outputs": {"y": [[20.0]]}, "model": name}
    assert client.post("/infer", b"x", Content_Type="image/png")[0] == 415


@pytest.mark.parametrize("path", ["/infer", "/v2/models/m/infer", "/invocations"])
def test_content_types(served: Served, path: str) -> None:
    served.load(linear(1))
    client = Client(served)
    body = {
        "/infer": BODY,
        "/invocations": b'{"inputs": [[1, 2, 3, 4]]}',
    }.get(path, b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}')
    for kind in (
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/x-www-form-urlencoded",
    ):
        assert client.post(path, body, Content_Type=kind)[0] == 200
    for kind in ("text/plain", "application/xml", "multipart/form-data; boundary=x", "json", "\u00e9"):
        status, headers, answer = client.post(path, body, Content_Type=kind)
        assert status == 415
        assert "application/json" in headers["Accept"]
        assert "application/json" in answer.decode()


def test_methods_and_targets(served: Served) -> None:
    served.load(linear(1))
    client = Client(served)
    for path, allowed in (
        ("/infer", "OPTIONS, POST"),
        ("/health", "OPTIONS, GET, HEAD"),
        ("/v2/models/m/infer", "OPTIONS, POST"),
        ("/v2/models/m", "OPTIONS, GET, HEAD"),
        ("*", "OPTIONS"),
    ):
        status, headers, answer = client.ask("OPTIONS", path)
        assert (status, headers["Allow"], answer) == (200, allowed, b"")
    for path in ("/health", "/metrics", "/v2", "/v2/models/m", "/v2/health/ready", "/ping"):
        whole = client.ask("GET", path)
        status, headers, answer = client.ask("HEAD", path)
        assert (status, answer) == (200, b"")
        if path != "/metrics":  # which has changed by now
            assert headers["Content-Length"] == str(len(whole[2]))
    assert client.ask("HEAD", "/infer")[0] == 405
    assert client.ask("DELETE", "/v2/models/m")[0] == 405
    assert client.ask("GET", f"http://{served.address}/health")[0] == 200
    assert client.ask("GET", f"http://{served.address}")[0] == 404
    for path in (
        "/v2/",
        "/v2/models/",
        "/v2/models/m/versions",
        "/v2/models/m/infer/x",
        "/infer/",
        "/v3",
        "*",
    ):
        status, _, answer = client.ask("GET", path)
        assert status == 404, (path, answer)
        told = json.loads(answer)["error"]
        assert "POST /infer" in (told if path.startswith("/v2") else told["message"])
    assert client.ask("OPTIONS", "/nothing")[0] == 404
    assert client.ask("GET", "/v2/models/%6d/versions/%31")[0] == 200
    assert client.ask("GET", "/v2/models/%FF")[0] == 404


def test_a_body_that_is_too_large_is_refused_in_the_shape_of_its_protocol(served: Served) -> None:
    served.load(linear(1))
    body = b"x" * ((LIMIT_MB << 20) + 1)
    for path, member in (
        ("/infer", "error"),
        ("/v2/models/m/infer", "error"),
        ("/invocations", "error_code"),
    ):
        status, _, answer = Client(served).post(path, body)
        assert (status, member in json.loads(answer)) == (413, True)
    assert isinstance(json.loads(Client(served).post("/v2/models/m/infer", body)[2])["error"], str)


def test_a_tensor_may_say_its_shape(served: Served) -> None:
    served.load(typed(TensorProto.INT64, [None, None]))
    client = Client(served)
    for said, shape in (
        ({"shape": [0, 3], "data": []}, (0, 3)),
        ({"shape": [2, 0], "data": []}, (2, 0)),
        ({"shape": [3, 1], "data": [1, 2, 3]}, (3, 1)),
    ):
        status, _, answer = client.post("/infer", json.dumps({"inputs": {"x": said}}).encode())
        assert (status, np.array(json.loads(answer)["outputs"]["y"]).size) == (200, np.prod(shape))
    for wrong in ([3], [2, 2], [-1, 3], ["a"], 3, [True, 3], [1 << 62, 0]):
        body = json.dumps({"inputs": {"x": {"shape": wrong, "data": [1, 2, 3]}}}).encode()
        assert client.post("/infer", body)[0] == 400


def test_state_is_passed_by_the_caller(served: Served) -> None:
    """A model with state takes it as an input and gives the next as an output."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "state"], ["next"]), helper.make_node("Identity", ["next"], ["y"])],
        "counter",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "state")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("y", "next")],
    )
    served.load(model_bytes(graph))
    client = Client(served)
    state = [0.0]
    for number in (1, 2, 3):
        body = json.dumps({"inputs": {"x": [number], "state": state}}).encode()
        state = json.loads(client.post("/infer", body)[2])["outputs"]["next"]
    assert state == [6.0]


TABLES = st.sampled_from(
    [
        Interface(inputs=(TensorSpec(name="x", dtype="tensor(float)", shape=(None, 2)),)),
        Interface(
            inputs=tuple(
                TensorSpec(name=name, dtype=f"tensor({kind})", shape=(None, 1))
                for name, kind in (("a", "int64"), ("b", "string"), ("c", "bool"))
            ),
            columns=(Column(name="a"), Column(name="b"), Column(name="c")),
        ),
    ]
)


@given(
    st.text(alphabet='abc,"\n\r0123.eE+-_ ²\ufeff', max_size=60).map(str.encode) | st.binary(max_size=40),
    TABLES,
)
def test_any_csv_is_a_feed_or_an_input_error(body: bytes, interface: Interface) -> None:
    try:
        feed = frames.feed(frames.from_csv(body, interface), interface)
    except errors.InputError:
        return
    assert feed.keys() == {spec.name for spec in interface.inputs}


def test_bytes_as_the_answer(served: Served) -> None:
    served.load(linear(2))
    client = Client(served)
    rows = np.arange(8, dtype="<f4").reshape(2, 4)
    status, headers, answer = client.post("/infer", rows.tobytes(), Content_Type=OCTETS, Accept=OCTETS)
    assert (status, headers["Content-Type"]) == (200, OCTETS)
    assert (headers["Tensor-Shape"], headers["Tensor-Type"]) == ("2,1", "float32")
    assert np.frombuffer(answer, "<f4").tolist() == (2 * rows.sum(axis=1)).tolist()
    # It says nothing of what comes in, and whoever accepts anything gets JSON.
    assert client.post("/infer", BODY, Accept=OCTETS)[1]["Tensor-Shape"] == "1,1"
    for accepted in ("*/*", "application/json", "application/octet-stream, application/json"):
        assert client.post("/infer", BODY, Accept=accepted)[1]["Content-Type"] == "application/json"


def test_bytes_as_the_answer_are_refused_where_they_would_not_say_enough(served: Served) -> None:
    plain = served.load(linear(1))
    served.slot.swap(dataclasses.replace(plain, steps=Doubling(image=False, answer=True)))
    client = Client(served)
    status, _, answer = client.post("/infer", b"5", Accept=OCTETS)
    assert (status, json.loads(answer)["error"]["code"]) == (406, "not_acceptable")
    assert "binary_data_output" in json.loads(answer)["error"]["message"]
