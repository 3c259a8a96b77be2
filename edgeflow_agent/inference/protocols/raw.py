"""The bytes of the one input or output tensor, and nothing else."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.inference import tensors
from edgeflow_agent.inference.engine import DTYPES
from edgeflow_agent.inference.messages import OCTETS, Response
from edgeflow_agent.inference.slot import Serving
from edgeflow_agent.wire.documents import Interface, TensorSpec

_ALIGNMENT = 16  # of what numpy allocates
_IS_LITTLE = sys.byteorder == "little"
# How each type is written; strings are in none.
_FORMS: dict[str, np.dtype[Any]] = {
    name: np.dtype(dtype).newbyteorder("<") for name, dtype in DTYPES.items() if dtype is not np.object_
}


def decode(body: bytes | memoryview, interface: Interface, shape: str) -> dict[str, Any]:
    """The feed from little-endian bytes; `shape` is what the caller says, as in `1,3,224,224`, or empty.
    Raise InputError."""
    spec, sizes = _form(interface.inputs, shape, len(body))
    return {spec.name: from_bytes(body, spec, sizes)}


@functools.lru_cache(64)
def _form(inputs: Sequence[TensorSpec], shape: str, size: int) -> tuple[TensorSpec, tuple[int, ...]]:
    """The one input, and its shape. Kept, because one request is mostly like the one before."""
    needed = [spec for spec in inputs if not tensors.is_optional(spec)]
    if len(needed) != 1:
        raise errors.InputError(
            f"raw bytes are for a model with one input; this one takes {tensors.listing(inputs)}"
        )
    spec = needed[0]
    if spec.dtype not in _FORMS:
        raise errors.InputError(f"input {spec.name!r} takes strings, which have no raw form; send JSON")
    return spec, _said(shape) if shape else _inferred(spec, size, _FORMS[spec.dtype].itemsize)


def has_form(outputs: Sequence[TensorSpec]) -> bool:
    """Whether these outputs can be answered as nothing but bytes."""
    return len(outputs) == 1 and DTYPES.get(outputs[0].dtype, np.object_) is not np.object_


def answer(_serving: Serving, _query: bytes, _feed: Any, outputs: Sequence[Any]) -> Response:
    """The little-endian bytes of the one output, whose shape and type stand in headers."""
    (array,) = outputs
    little = array if _IS_LITTLE else array.astype(array.dtype.newbyteorder("<"), copy=False)
    return Response(200, little.tobytes(), OCTETS, _described(array.shape, array.dtype))


@functools.lru_cache(256)
def _described(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    return f"Tensor-Shape: {','.join(map(str, shape))}\r\nTensor-Type: {dtype.name}\r\n".encode()


def from_bytes(data: bytes | memoryview, spec: TensorSpec, shape: tuple[int, ...]) -> Any:
    """An array over `data`, which must be of exactly the size of that shape. Not for strings."""
    dtype = _FORMS[spec.dtype]
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise errors.InputError(
            f"input {spec.name!r}: {spec.dtype} of shape {list(shape)} takes {wanted} bytes, got {len(data)}"
        )
    flat = np.frombuffer(data, dtype)
    if dtype.kind == "b" and (flat.view(np.uint8) > 1).any():
        raise errors.InputError(f"input {spec.name!r}: a byte of a boolean is neither 0 nor 1")
    if flat.__array_interface__["data"][0] % _ALIGNMENT:
        # ONNX Runtime sums in another order, and rounds otherwise, where memory begins elsewhere.
        flat = flat.copy()
    return tensors.reshaped(flat, spec, shape)


def _said(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.strip("[]() ").split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise errors.InputError(f"the shape {text[:80]!r} is not a list of sizes such as 1,3,224,224")
    return tuple(int(part) for part in parts)


def _inferred(spec: TensorSpec, size: int, itemsize: int) -> tuple[int, ...]:
    free = [index for index, item in enumerate(spec.shape) if not tensors.is_fixed(item)]
    fixed = math.prod(item for item in spec.shape if isinstance(item, int) and item >= 0) * itemsize
    if len(free) > 1 or (not spec.shape and size != itemsize) or (free and not fixed):
        raise errors.InputError(
            f"input {spec.name!r} is {tensors.expected(spec)}: say which, with ?shape=1,3,224,224 or "
            "the header Tensor-Shape"
        )
    shape = [item if isinstance(item, int) else -1 for item in spec.shape]
    if free:
        if size % fixed:
            raise errors.InputError(
                f"input {spec.name!r} is {tensors.expected(spec)}: {size} bytes are no multiple of {fixed}"
            )
        shape[free[0]] = size // fixed
    return tuple(shape)
