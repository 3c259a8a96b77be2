"""The Open Inference Protocol: tritonclient unchanged, and what it does not send."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from edgeflow_agent import errors
from edgeflow_agent.inference.protocols import oip_tensors
from edgeflow_agent.wire.documents import TensorSpec
from tests.agent.conftest import linear, model_bytes
from tests.agent.served import Client, Served

TYPES = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}
CODINGS = (None, "gzip", "deflate")


def identity(dtype: str, rank: int = 2) -> bytes:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(TYPES[dtype]))
    shape = [None] * rank
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    return model_bytes(graph)


def sample(dtype: str) -> Any:
    kind = TYPES[dtype]
    if dtype == "string":
        return np.array([["", "ä" * 3000, "a\0b"], ["x", '"\\\n', "\U0001f600" * 3000]], dtype=np.object_)
    values = np.random.default_rng(1).integers(0, 120, (40, 300)).astype(kind)
    if np.dtype(kind).kind in "iu":
        values[0, :2] = np.iinfo(kind).min, np.iinfo(kind).max
    return values


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as server:
        yield server


def asked(array: Any, *, binary: bool) -> tuple[list[Any], list[Any]]:
    tensor = tritonclient.http.InferInput("x", list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array, binary_data=binary)
    return [tensor], [tritonclient.http.InferRequestedOutput("y", binary_data=binary)]


def check(result: Any, array: Any) -> None:
    answer = result.as_numpy("y")
    if array.dtype == np.object_:
        decoded = [item.decode() if isinstance(item, bytes) else item for item in answer.reshape(-1)]
        assert (answer.shape, decoded) == (array.shape, array.reshape(-1).tolist())
    else:
        assert answer.dtype == array.dtype
        np.testing.assert_array_equal(answer, array)
    assert result.get_response()["id"] == "7"


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("dtype", TYPES)
def test_tritonclient_over_all_types_and_codings(served: Served, dtype: str, binary: bool) -> None:
    served.load(identity(dtype))
    array = sample(dtype)
    inputs, outputs = asked(array, binary=binary)
    client = tritonclient.http.InferenceServerClient(served.address)
    for sent in CODINGS:
        for wanted in CODINGS:
            options: dict[str, Any] = {
                "inputs": inputs,
                "outputs": outputs,
                "request_id": "7",
                "request_compression_algorithm": sent,
                "response_compression_algorithm": wanted,
            }
            check(client.infer("m", **options), array)
            check(client.async_infer("m", model_version="1", **options).get_result(), array)
    check(client.infer("m", inputs, request_id="7"), array)  # without outputs it asks for bytes
    client.close()


@pytest.mark.parametrize("dtype", TYPES)
def test_the_asynchronous_tritonclient(served: Served, dtype: str) -> None:
    served.load(identity(dtype))
    array = sample(dtype)

    async def run() -> None:
        async with tritonclient.http.aio.InferenceServerClient(served.address) as client:
            assert await client.is_model_ready("m")
            for binary in (True, False):
                inputs, outputs = asked(array, binary=binary)
                for coding in CODINGS:
                    result = await client.infer(
                        "m",
                        inputs,
                        outputs=outputs,
                        request_id="7",
                        request_compression_algorithm=coding,
                        response_compression_algorithm=coding,
                    )
                    check(result, array)

    asyncio.run(run())


def test_large_answers_are_packed_when_asked_and_small_ones_are_not(served: Served) -> None:
    served.load(identity("float"))
    client = Client(served)
    for rows, packed in ((1, False), (3000, True)):
        body = json.dumps({"inputs": [[1.0]] * rows}).encode()
        for accepted, coding in (
            ("gzip", "gzip"),
            ("deflate, br", "deflate"),
            ("gzip;q=0, *", "deflate"),
            ("br;q=1, *;q=0.1", "gzip"),
        ):
            _, headers, answer = client.post("/infer", body, Accept_Encoding=accepted)
            assert headers.get("Content-Encoding") == (coding if packed else None)
            if packed:
                answer = gzip.decompress(answer) if coding == "gzip" else zlib.decompress(answer)
            assert len(json.loads(answer)["outputs"]["y"]) == rows
        for accepted in ("", "br", "gzip;q=0", "identity", "gzip;q=x", "*;q=0"):
            assert "Content-Encoding" not in client.post("/infer", body, Accept_Encoding=accepted)[1]


def test_pages_for_tritonclient(served: Served) -> None:
    serving = served.load(linear(1), name="iris model", version="3")
    client = tritonclient.http.InferenceServerClient(served.address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris model")
    assert client.is_model_ready("iris model", "3")
    assert not client.is_model_ready("iris model", "4")
    assert not client.is_model_ready("other")
    metadata = client.get_server_metadata()
    assert metadata["name"] == "edgeflow-agent"
    assert "binary_tensor_data" in metadata["extensions"]
    assert client.get_model_metadata("iris model", "3") == {
        "name": "iris model",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }
    config = client.get_model_config("iris model")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}]
    assert (config["backend"], config["max_batch_size"]) == ("onnxruntime", 0)
    inputs, outputs = asked(np.ones((2, 4), np.float32), binary=True)
    result = client.infer("iris model", inputs, model_version="3", outputs=outputs)
    assert result.as_numpy("y").tolist() == [[4.0], [4.0]]
    for statistics in (client.get_inference_statistics(), client.get_inference_statistics("iris model")):
        (only,) = statistics["model_stats"]
        assert (only["name"], only["execution_count"]) == ("iris model", 1)
        assert only["inference_stats"]["success"]["count"] == 1
        assert only["inference_stats"]["compute_infer"]["ns"] == round(serving.stats.seconds * 1e9)
    (only,) = client.get_model_repository_index()
    assert only == {"name": "iris model", "version": "3", "state": "READY", "reason": ""}
    for call in (
        lambda: client.infer("other", inputs),
        lambda: client.infer("iris model", inputs, model_version="4"),
        lambda: client.get_model_metadata("other"),
        lambda: client.load_model("iris model"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == "404"
        assert isinstance(caught.value.message(), str)


def test_without_a_model(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        client = tritonclient.http.InferenceServerClient(served.address)
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("m")
        assert client.get_model_repository_index() == []
        assert client.get_inference_statistics() == {"model_stats": []}
        inputs, _ = asked(np.ones((1, 4), np.float32), binary=True)
        with pytest.raises(InferenceServerException, match="no model") as caught:
            client.infer("m", inputs)
        assert caught.value.status() == "503"


def request(inputs: Any = None, **members: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    return json.dumps({"inputs": [tensor] if inputs is None else inputs, **members}).encode()


def changed(**members: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]} | members
    return request([{key: value for key, value in tensor.items() if value is not None}])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "`inputs`"),
        (b"[" * 100_000, ""),
        (b'{"inputs": ' + b"[" * 100_000, ""),
        (b'{"x": NaN, "inputs": ' + b"[" * 100_000, ""),
        (request([]), "'x' is missing"),
        (changed(name="z"), "unknown input 'z'"),
        (request([json.loads(changed())["inputs"][0]] * 2), "twice"),
        (changed(datatype="FP64"), "expected FP32, got FP64"),
        (changed(shape=[1, 5]), "[1, 5]"),
        (changed(shape=[4]), "[4]"),
        (changed(shape=[2, 4]), "4 values do not make the shape [2, 4]"),
        (changed(shape=[-1, 4]), "size"),
        (changed(shape=[1 << 62, 4]), "size"),
        (changed(shape=[1 << 61, 4]), "do not make"),
        (changed(shape=["a"]), "$.inputs[0].shape"),
        (changed(shape=[True, 4]), "$.inputs[0].shape"),
        (changed(data=["a", "b", "c", "d"]), "strings"),
        (changed(data=[[1, 2], [3]]), "different lengths"),
        (changed(data=[1e300, 0, 0, 0]), "out of range"),
        (changed(data=None), "neither data nor"),
        (changed(parameters={"binary_data_size": 16}), "both"),
        (changed(parameters={"binary_data_size": 16}, data=None), "0 bytes follow"),
        (changed(parameters={"binary_data_size": True}, data=None), "not a size"),
        (changed(parameters={"shared_memory_region": "r"}), "shared memory"),
        (request(outputs=[{"name": "z"}]), "unknown output 'z'"),
        (request(outputs=[{"name": "y", "parameters": {"classification": 2}}]), "classification"),
        (request(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), "'binary_data'"),
        (request(parameters={"binary_data_output": "yes"}), "'binary_data_output'"),
        (request(id=5), "$.id"),
    ],
)
def test_refusals(served: Served, body: bytes, told: str) -> None:
    served.load(linear(1))
    status, _, answer = Client(served).post("/v2/models/m/infer", body)
    error = json.loads(answer)["error"]
    assert status == 400
    assert told in error


@pytest.mark.parametrize("length", ["-1", "x", "1, 2", "999", "9" * 30, "", "5"])
def test_a_wrong_length_of_the_json_is_refused(served: Served, length: str) -> None:
    served.load(linear(1))
    headers = {"Inference-Header-Content-Length": length}
    status, _, answer = Client(served).ask("POST", "/v2/models/m/infer", request(), headers)
    assert status == 400, answer
    rest = {"Inference-Header-Content-Length": str(len(request()))}
    status, _, answer = Client(served).ask("POST", "/v2/models/m/infer", request() + b"1234", rest)
    assert (status, "4 bytes" in json.loads(answer)["error"]) == (400, True)


def test_null_is_nothing_said(served: Served) -> None:
    served.load(linear(1))
    tensor = json.loads(changed())["inputs"][0] | {"parameters": None}
    outputs = [{"name": "y", "parameters": None}]
    for said in (outputs, None, []):
        body = request([tensor], id=None, parameters=None, outputs=said)
        status, _, answer = Client(served).post("/v2/models/m/infer", body)
        assert (status, json.loads(answer)["outputs"][0]["data"]) == (200, [10.0])


def test_numbers_that_are_not_finite(served: Served) -> None:
    served.load(identity("float", 1))
    client = Client(served)
    tensor = '{"inputs": [{"name": "x", "shape": [4], "datatype": "FP32", "data": [%s]}]}'
    for sent in ("null, 1, null, 2", "NaN, 1, Infinity, 2", "null, 1, -Infinity, 2"):
        status, _, answer = client.post("/v2/models/m/infer", (tensor % sent).encode())
        assert (status, json.loads(answer)["outputs"][0]["data"]) == (200, [None, 1.0, None, 2.0])
    array = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    inputs, _ = asked(array, binary=True)
    triton = tritonclient.http.InferenceServerClient(served.address)
    assert triton.infer("m", inputs).as_numpy("y").tobytes() == array.tobytes()


def test_each_output_has_its_own_form(served: Served) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Shape", ["x"], ["n"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info("n", TensorProto.INT64, [2]),
        ],
    )
    served.load(model_bytes(graph))
    array = np.ones((3, 2), np.float32)
    inputs, _ = asked(array, binary=False)
    client = tritonclient.http.InferenceServerClient(served.address)
    result = client.infer(
        "m",
        inputs,
        outputs=[
            tritonclient.http.InferRequestedOutput("n", binary_data=False),
            tritonclient.http.InferRequestedOutput("y", binary_data=True),
        ],
    )
    assert [item["name"] for item in result.get_response()["outputs"]] == ["n", "y"]
    assert result.get_output("n")["data"] == [3, 2]
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    assert client.infer("m", inputs, outputs=[]).as_numpy("n").tolist() == [3, 2]


def test_a_zipmap_is_text_in_json(served: Served) -> None:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, labels = load_iris(return_X_y=True)
    model = to_onnx(LogisticRegression(max_iter=500).fit(rows, labels), rows[:1].astype(np.float32))
    served.load(model.SerializeToString())
    client = tritonclient.http.InferenceServerClient(served.address)
    outputs = {item["name"]: item for item in client.get_model_metadata("m")["outputs"]}
    assert (outputs["output_probability"]["datatype"], outputs["output_probability"]["shape"]) == (
        "BYTES",
        [-1],
    )
    tensor = tritonclient.http.InferInput("X", [2, 4], "FP32")
    tensor.set_data_from_numpy(rows[:2].astype(np.float32))
    result = client.infer("m", [tensor])
    first = json.loads(result.as_numpy("output_probability")[0])
    assert list(first) == ["0", "1", "2"]
    assert sum(first.values()) == pytest.approx(1)


def test_optional_inputs(served: Served) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    graph = helper.make_graph(
        [helper.make_node("OptionalHasElement", ["x"], ["y"])],
        "optional",
        [helper.make_value_info("x", kind)],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    served.load(model.SerializeToString())
    client = Client(served)
    for body, there in (({}, False), ({"x": None}, False), ({"x": [1, 2]}, True)):
        status, _, answer = client.post("/infer", json.dumps({"inputs": body}).encode())
        assert (status, json.loads(answer)["outputs"]) == (200, {"y": there})
    for inputs, there in (
        ([], False),
        ([{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}], True),
    ):
        status, _, answer = client.post("/v2/models/m/infer", json.dumps({"inputs": inputs}).encode())
        assert (status, json.loads(answer)["outputs"][0]["data"]) == (200, [there])


def tensor_of(described: Any) -> oip_tensors.Tensor:
    return msgspec.json.decode(msgspec.json.encode(described), type=oip_tensors.Tensor)


@given(st.data(), st.sampled_from(list(TYPES)), st.booleans())
def test_any_tensor_survives_the_way_there_and_back(data: st.DataObject, dtype: str, binary: bool) -> None:
    kind = np.dtype(TYPES[dtype])
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
    elements: st.SearchStrategy[Any] = (
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
        if dtype == "string"
        else hnp.from_dtype(kind, **({"allow_infinity": False} if kind.kind == "f" and not binary else {}))
    )
    array = data.draw(hnp.arrays(kind, shape, elements=elements))
    described, blob = oip_tensors.encode("x", array, binary=binary)
    spec = TensorSpec(name="x", dtype=f"tensor({dtype})", shape=shape)
    reader = oip_tensors.Binary(memoryview(b"?" + blob)[1:])
    back = oip_tensors.decode(tensor_of(described), spec, reader)
    reader.end()
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    if binary and dtype != "string":
        assert back.tobytes() == array.tobytes()
    else:
        np.testing.assert_array_equal(back, array)


@given(
    st.data(),
    st.sampled_from(list(TYPES)),
    st.lists(st.integers(-1, 5) | st.integers(), max_size=4),
    st.none() | st.integers(-1, 40),
)
def test_mutated_bytes_are_an_array_or_an_input_error(
    data: st.DataObject, dtype: str, shape: list[int], size: int | None
) -> None:
    array = sample(dtype)[:2, :3]
    described, blob = oip_tensors.encode("x", array, binary=True)
    mutable = bytearray(blob)
    for place in data.draw(st.lists(st.integers(0, len(mutable) - 1), max_size=4)):
        mutable[place] = data.draw(st.integers(0, 255))
    blob = bytes(mutable[: data.draw(st.integers(0, len(mutable)))])
    parameters = {"binary_data_size": len(blob) if size is None else size}
    tensor = oip_tensors.Tensor(
        name="x",
        shape=tuple(data.draw(st.sampled_from([shape, list(array.shape)]))),
        datatype=described["datatype"],
        parameters=parameters,
    )
    spec = TensorSpec(name="x", dtype=f"tensor({dtype})", shape=(None, 3))
    try:
        reader = oip_tensors.Binary(memoryview(blob))
        decoded = oip_tensors.decode(tensor, spec, reader)
        reader.end()
    except errors.InputError:
        return
    assert decoded.shape == tensor.shape
