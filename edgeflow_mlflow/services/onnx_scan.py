"""Read an ONNX file that nobody has vouched for, in a process of its own with capped memory and time.

Run as `python -m edgeflow_mlflow.services.onnx_scan FOLDER ENTRY`; prints one JSON object. A hostile
file can then at worst end this process.
"""

from __future__ import annotations

import collections
import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeflow_agent.wire import documents
from edgeflow_mlflow import errors

MEMORY_BYTES = 4 * 2**30
CPU_S = 60
WALL_S = 120
_MAX_NODES = 200_000
_MAX_DEPTH = 32
_MOST_OPERATORS = 200
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_TYPES = {
    "FLOAT": "float",
    "DOUBLE": "double",
    "FLOAT16": "float16",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "BOOL": "bool",
    "STRING": "string",
}


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a graph says of itself: the files it refers to, its inputs and outputs (as plain data for the
    wire), versions, how many operators of each kind and how many numbers it holds, and why it cannot go to a
    device (empty: it can)."""

    files: tuple[str, ...]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    ir_version: int
    opsets: dict[str, int]
    nodes: int
    operators: dict[str, int]
    parameters: int
    problems: tuple[str, ...]


def scan(folder: Path, entry: str) -> Scan:
    """Scan `entry` in `folder`; raise UnprocessableError when it cannot be read at all."""
    command = [sys.executable, "-m", "edgeflow_mlflow.services.onnx_scan", str(folder), entry]
    try:
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            command, capture_output=True, timeout=WALL_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise errors.UnprocessableError(f"{entry} could not be read within {WALL_S} s") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"the reader ended with {done.returncode} (out of memory or time)"
        raise errors.UnprocessableError(f"{entry} is not a readable ONNX model: {why[:500]}")
    found = json.loads(done.stdout)
    return Scan(**{**found, "files": tuple(found["files"]), "problems": tuple(found["problems"])})


def _read(folder: Path, entry: str) -> dict[str, Any]:
    import onnx  # heavy, and only the child needs it

    model = onnx.load(folder / entry, load_external_data=False)
    if not _has_external(model):  # the checker would look for the files beside this process
        onnx.checker.check_model(model, full_check=False)
    problems: list[str] = []
    files = {entry}
    graphs = [model.graph, *model.functions]
    nodes = 0
    operators: collections.Counter[str] = collections.Counter()
    for graph in graphs:
        for node, depth in _nodes(graph, 0):
            nodes += 1
            operators[node.op_type[:100]] += 1
            if nodes > _MAX_NODES or depth > _MAX_DEPTH:
                problems.append(f"more than {_MAX_NODES} nodes or {_MAX_DEPTH} nested graphs")
                break
            if node.domain not in _DOMAINS and not any(f.domain == node.domain for f in model.functions):
                problems.append(f"operator {node.domain}::{node.op_type} is not part of ONNX Runtime")
            if node.op_type == "EPContext":
                problems.append("it carries a compiled context of one hardware (EPContext)")
    parameters = 0
    for tensor in _tensors(model):
        parameters += math.prod(tensor.dims) if tensor.dims else 0
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            problems += _external(folder, tensor, files)
    specs: dict[str, list[dict[str, Any]]] = {}
    for kind, values in (("inputs", _real_inputs(model.graph)), ("outputs", model.graph.output)):
        specs[kind] = []
        for value in values:
            spec, problem = _spec(onnx, value)
            specs[kind].append(spec)
            if problem:
                problems.append(f"{kind[:-1]} {value.name!r} is {problem}, which cannot be served")
    return {
        "files": sorted(files),
        **specs,
        "ir_version": model.ir_version,
        "opsets": {item.domain or "ai.onnx": item.version for item in model.opset_import},
        "nodes": nodes,
        "operators": dict(operators.most_common(_MOST_OPERATORS)),
        "parameters": parameters,
        "problems": list(dict.fromkeys(problems))[:20],
    }


def _has_external(model: Any) -> bool:
    return any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(model))


def _real_inputs(graph: Any) -> list[Any]:
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _nodes(graph: Any, depth: int) -> Iterator[tuple[Any, int]]:
    for node in graph.node:
        yield node, depth
        if depth <= _MAX_DEPTH:
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    yield from _nodes(inner, depth + 1)


def _tensors(model: Any) -> Iterator[Any]:
    def of_graph(graph: Any, depth: int) -> Iterator[Any]:
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield sparse.values
            yield sparse.indices
        for node in graph.node:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield sparse.values
                    yield sparse.indices
                if depth <= _MAX_DEPTH:
                    for inner in (attribute.g, *attribute.graphs):
                        yield from of_graph(inner, depth + 1)

    yield from of_graph(model.graph, 0)
    for function in model.functions:
        yield from of_graph(function, 0)
    for training in model.training_info:
        yield from of_graph(training.initialization, 0)
        yield from of_graph(training.algorithm, 0)


def _external(folder: Path, tensor: Any, files: set[str]) -> list[str]:
    values = {item.key: item.value for item in tensor.external_data}
    location = values.get("location", "")
    if not documents.FILE_NAME.fullmatch(location):
        return [f"tensor {tensor.name!r} refers to {location[:120]!r}, which is not a file beside the model"]
    path = folder / location
    if not path.is_file() or path.is_symlink():
        return [f"the file {location!r}, to which tensor {tensor.name!r} refers, is missing"]
    try:
        offset, length = int(values.get("offset", "0")), int(values.get("length", "0"))
    except ValueError:
        return [f"tensor {tensor.name!r} has no readable place in {location!r}"]
    if offset < 0 or length < 0 or offset + length > path.stat().st_size:
        return [f"tensor {tensor.name!r} lies outside the file {location!r}"]
    files.add(location)
    return []


def _spec(onnx: Any, value: Any) -> tuple[dict[str, Any], str]:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        # A scikit-learn classifier may answer with a sequence of maps; as an output that is fine.
        is_zipmap = kind == "sequence_type" and value.type.sequence_type.elem_type.HasField("map_type")
        return {"name": value.name, "dtype": "seq(map)" if is_zipmap else str(kind), "shape": []}, (
            "" if is_zipmap else str(kind)
        )
    tensor = value.type.tensor_type
    word = onnx.TensorProto.DataType.Name(tensor.elem_type)
    shape = [
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in tensor.shape.dim
    ]
    dtype = _TYPES.get(word)
    spec = {"name": value.name, "dtype": f"tensor({dtype or word.lower()})", "shape": shape}
    return spec, "" if dtype else word.lower()


def main() -> None:
    """The child's part."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    json.dump(_read(Path(sys.argv[1]), sys.argv[2]), sys.stdout)


if __name__ == "__main__":
    main()
