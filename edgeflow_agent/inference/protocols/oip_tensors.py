"""Tensors of the Open Inference Protocol, as JSON and as bytes.

What JSON cannot say: a number that is not finite is answered as null, and null for a float is NaN. Sequences
and maps, which the protocol does not know, are answered as BYTES: the JSON of one element each.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.inference import tensors
from edgeflow_agent.inference.protocols import raw
from edgeflow_agent.wire.documents import TensorSpec

_NAMES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
_KINDS = {"f": "FP", "i": "INT", "u": "UINT"}
_LENGTH = struct.Struct("<I")


class Tensor(msgspec.Struct, frozen=True):
    """One input of a request."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, Any] | None = None  # some clients write null for what they do not say
    data: Any = None


def datatype(spec: TensorSpec) -> str:
    """The protocol's word for a type of the graph."""
    dtype = spec.dtype
    if tensors.is_optional(spec):
        dtype = dtype.removeprefix("optional(").removesuffix(")")
    return _NAMES.get(dtype, "BYTES")


def shape(spec: TensorSpec) -> list[int]:
    """The declared shape, -1 where it is free."""
    if spec.dtype.startswith("seq("):
        return [-1]
    return [size if tensors.is_fixed(size) else -1 for size in spec.shape]  # type: ignore[misc]


class Binary:
    """The bytes after the JSON of a request: the tensors that it announces, back to back."""

    def __init__(self, data: memoryview) -> None:
        self._rest = data

    def take(self, size: Any, name: str) -> memoryview:
        """The next `size` bytes."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise errors.InputError(f"input {name!r}: binary_data_size is not a size")
        if size > len(self._rest):
            raise errors.InputError(
                f"input {name!r}: binary_data_size is {size}, but only {len(self._rest)} bytes follow"
            )
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def end(self) -> None:
        """Raise InputError unless everything was taken."""
        if self._rest:
            raise errors.InputError(f"{len(self._rest)} bytes of the body belong to no input")


def decode(tensor: Tensor, spec: TensorSpec, binary: Binary) -> Any:
    """The array of one input. Raise InputError."""
    name, wanted = spec.name, datatype(spec)
    if tensor.datatype != wanted:
        raise errors.InputError(f"input {name!r}: expected {wanted}, got {tensor.datatype}")
    if any(size < 0 or size >= 1 << 62 for size in tensor.shape):
        raise errors.InputError(f"input {name!r}: its shape holds what is not a size")
    parameters = tensor.parameters or {}
    if "shared_memory_region" in parameters:
        raise errors.InputError(f"input {name!r}: shared memory is not supported; send the tensor")
    size = parameters.get("binary_data_size")
    if size is None:
        if tensor.data is None:
            raise errors.InputError(f"input {name!r} has neither data nor binary_data_size")
        return tensors.reshaped(tensors.cast(tensor.data, spec), spec, tensor.shape)
    if tensor.data is not None:
        raise errors.InputError(f"input {name!r} has both data and binary_data_size")
    data = binary.take(size, name)
    if wanted == "BYTES":
        return tensors.reshaped(_strings(data, name), spec, tensor.shape)
    return raw.from_bytes(data, spec, tensor.shape)


def _strings(data: memoryview, name: str) -> Any:
    items = []
    offset = 0
    while offset < len(data):
        begin = offset + _LENGTH.size
        if begin > len(data):
            raise errors.InputError(f"input {name!r}: the length of a string is cut off")
        offset = begin + _LENGTH.unpack_from(data, offset)[0]
        if offset > len(data):
            raise errors.InputError(f"input {name!r}: a string is cut off")
        try:
            items.append(str(data[begin:offset], "utf-8"))
        except UnicodeDecodeError as error:
            raise errors.InputError(f"input {name!r}: a string is not UTF-8: {error}") from error
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array


def encode(name: str, value: Any, *, binary: bool) -> tuple[Mapping[str, Any], bytes]:
    """One output as a member of the answer's JSON, and its bytes when it is `binary`."""
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else _texts(value)
    described: dict[str, Any] = {
        "name": name,
        "datatype": "BYTES" if array.dtype == np.object_ else _by_dtype(array.dtype),
        "shape": array.shape,
    }
    if not binary:
        return described | {"data": array.reshape(-1).tolist()}, b""
    data = _joined(array) if array.dtype == np.object_ else array.tobytes()
    return described | {"parameters": {"binary_data_size": len(data)}}, data


def _by_dtype(dtype: Any) -> str:
    if dtype == np.bool_:
        return "BOOL"
    return _KINDS[dtype.kind] + str(dtype.itemsize * 8)


def _texts(value: Any) -> Any:
    items: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    array = np.empty(len(items), dtype=np.object_)
    array[:] = [msgspec.json.encode(tensors.encode(item)).decode() for item in items]
    return array


def _joined(array: Any) -> bytes:
    parts: list[bytes] = []
    for item in array.flat:
        text = item.encode()
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)
