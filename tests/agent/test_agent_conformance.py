"""The onnx package's own backend tests through HTTP: every protocol gives what a direct run gives."""

from __future__ import annotations

import collections
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_node_model_tests

from edgeflow_agent import errors
from edgeflow_agent.inference import slot
from edgeflow_agent.wire.documents import Interface, ModelRef
from tests.agent.served import Client, Served

DATATYPES = {
    "tensor(float)": ("FP32", "<f4"),
    "tensor(double)": ("FP64", "<f8"),
    "tensor(float16)": ("FP16", "<f2"),
    "tensor(int8)": ("INT8", "i1"),
    "tensor(int16)": ("INT16", "<i2"),
    "tensor(int32)": ("INT32", "<i4"),
    "tensor(int64)": ("INT64", "<i8"),
    "tensor(uint8)": ("UINT8", "u1"),
    "tensor(uint16)": ("UINT16", "<u2"),
    "tensor(uint32)": ("UINT32", "<u4"),
    "tensor(uint64)": ("UINT64", "<u8"),
    "tensor(bool)": ("BOOL", "?"),
    "tensor(string)": ("BYTES", "O"),
}


def cases() -> Iterator[tuple[str, Any, list[Any]]]:
    for case in load_node_model_tests():
        assert case.model is not None
        for inputs, _ in case.data_sets or []:
            yield case.name, case.model, list(inputs)


def array_of(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else None


def flat(array: Any) -> list[Any]:
    return [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1).tolist()]


def without_infinity(value: Any) -> Any:
    """Plain data as it comes back in JSON."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_infinity(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Protocols(Client):
    """One case by each protocol."""

    def own(self, feed: dict[str, Any]) -> tuple[int, Any]:
        inputs = {
            name: {"shape": list(array.shape), "data": flat(array)} if 0 in array.shape else array.tolist()
            for name, array in feed.items()
        }
        body = json.dumps({"inputs": without_infinity(inputs)}).encode()
        status, _, answer = self.post("/infer", body)
        outputs = json.loads(answer).get("outputs")
        return status, list(outputs.values()) if outputs else answer

    def oip_json(self, feed: dict[str, Any], types: dict[str, str]) -> tuple[int, Any]:
        inputs = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": DATATYPES[types[name]][0],
                "data": flat(array),
            }
            for name, array in feed.items()
        ]
        status, _, answer = self.post("/v2/models/case/infer", json.dumps({"inputs": inputs}).encode())
        return status, json.loads(answer).get("outputs") or answer

    def oip_binary(self, feed: dict[str, Any], types: dict[str, str]) -> tuple[int, Any]:
        described, blobs = [], []
        for name, array in feed.items():
            if array.dtype == np.object_:
                texts = [item if isinstance(item, bytes) else item.encode() for item in array.reshape(-1)]
                blob = b"".join(struct.pack("<I", len(text)) + text for text in texts)
            else:
                blob = array.tobytes()
            blobs.append(blob)
            described.append(
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": DATATYPES[types[name]][0],
                    "parameters": {"binary_data_size": len(blob)},
                }
            )
        header = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
        said = {"Inference-Header-Content-Length": str(len(header))}
        status, headers, answer = self.post("/v2/models/case/infer", header + b"".join(blobs), **said)
        if status != 200:
            return status, answer
        length = int(headers["Inference-Header-Content-Length"])
        outputs, rest = json.loads(answer[:length])["outputs"], answer[length:]
        for output in outputs:
            size = output["parameters"]["binary_data_size"]
            output["blob"], rest = rest[:size], rest[size:]
        assert rest == b""
        return status, outputs


def strings_in(blob: bytes) -> list[str]:
    found = []
    while blob:
        end = 4 + struct.unpack_from("<I", blob)[0]
        found.append(blob[4:end].decode())
        blob = blob[end:]
    return found


def same(value: Any, output: dict[str, Any]) -> bool:
    """Whether an output of the Open Inference Protocol is the value of a direct run, bit by bit where it
    came as bytes."""
    if not isinstance(value, np.ndarray):
        texts = strings_in(output["blob"]) if "blob" in output else output["data"]
        return output["datatype"] == "BYTES" and [json.loads(text) for text in texts] == without_infinity(
            value
        )
    if output["shape"] != list(value.shape):
        return False
    if value.dtype == np.object_:
        texts = strings_in(output["blob"]) if "blob" in output else output["data"]
        return output["datatype"] == "BYTES" and texts == flat(value)
    datatype = next(word for word, dtype in DATATYPES.values() if dtype != "O" and value.dtype == dtype)
    if output["datatype"] != datatype:
        return False
    if "blob" in output:
        return bool(output["blob"] == value.tobytes())
    return bool(output["data"] == without_infinity(value.reshape(-1)))


def same_outputs(first: list[Any], second: list[Any]) -> bool:
    return all(fingerprint(a) == fingerprint(b) for a, b in zip(first, second, strict=True))


def fingerprint(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) and value.dtype != np.object_ else str(value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as served:
        yield served


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore")
def test_every_backend_test_gives_what_a_direct_run_gives(server: Served, tmp_path: Path) -> None:
    client = Protocols(server)
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    path = tmp_path / "case.onnx"
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    for name, model, given in cases():
        counts["cases"] += 1
        onnx.save(model, path)
        try:
            serving = slot.load(
                path, model=ModelRef(name="case", version="1"), declared=Interface(), threads=1
            )
        except errors.ModelError as error:
            counts[f"not loaded: {error.reason}"] += 1
            continue
        session = onnxruntime.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
        types = {item.name: item.type for item in session.get_inputs()}
        arrays = {spec.name: array_of(value) for spec, value in zip(model.graph.input, given, strict=False)}
        feed = {key: value for key, value in arrays.items() if key in types}
        if any(value is None for value in feed.values()) or any(
            types[key].removeprefix("optional(").rstrip(")") + ")" not in DATATYPES for key in feed
        ):
            counts["inputs are no plain tensors"] += 1
            continue
        try:
            direct, *again = (session.run(None, feed) for _ in range(4))
        except Exception:  # noqa: BLE001 - whatever onnxruntime says of it
            counts["onnxruntime does not run it"] += 1
            continue
        if not all(same_outputs(direct, outputs) for outputs in again):
            counts["random"] += 1
            continue
        counts["compared"] += 1
        server.slot.swap(serving)
        server.slot.previous = None
        types = {key: "tensor(" + value.rpartition("(")[2].rstrip(")") + ")" for key, value in types.items()}
        for form in ("oip_json", "oip_binary"):
            status, outputs = getattr(client, form)(feed, types)
            if status == 200 and all(map(same, direct, outputs)) and len(direct) == len(outputs):
                counts[form] += 1
            else:
                wrong.append(f"{form} {name}: {status} {str(outputs)[:200]}")
        if any(np.isinf(value).any() for value in feed.values() if value.dtype.kind == "f"):
            counts["infinite, which /infer does not take"] += 1
            continue
        status, outputs = client.own(feed)
        if status == 200 and outputs == without_infinity(list(direct)):
            counts["own"] += 1
        else:
            wrong.append(f"own {name}: {status} {str(outputs)[:200]}")
    print("\n" + "\n".join(f"{count:6} {word}" for word, count in sorted(counts.items())))  # noqa: T201
    assert wrong == []
    assert counts["oip_json"] == counts["oip_binary"] == counts["compared"]
    assert counts["compared"] >= 1580
    assert counts["own"] >= 1550
