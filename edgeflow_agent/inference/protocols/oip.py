"""Inference by the Open Inference Protocol: `POST /v2/models/{model}/infer`, with its binary extension.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeflow_agent import errors, typed
from edgeflow_agent.inference import tensors
from edgeflow_agent.inference.messages import JSON, OCTETS, Request, Response
from edgeflow_agent.inference.protocols import media, oip_tensors
from edgeflow_agent.inference.protocols.asked import Asked
from edgeflow_agent.inference.refusals import RefusedError
from edgeflow_agent.inference.slot import Serving

# The bytes of a body say by a header of their own how much of them is JSON; clients send either type for
# both, or none.
_KNOWN = (JSON, OCTETS)


class _Wanted(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, Any] | None = None


class _Call(msgspec.Struct, frozen=True):
    inputs: list[oip_tensors.Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Wanted] | None = None


def check_model(serving: Serving, model: str, version: str) -> None:
    """Raise RefusedError unless this is the model that answers; an empty version means any."""
    own = serving.model
    if model != own.name or version not in ("", own.version):
        said = f"{model!r} version {version!r}" if version else repr(model)
        raise RefusedError(
            404,
            "unknown_model",
            f"there is no model {said[:200]} here; what answers is {own.name!r} version {own.version!r}",
        )


def read(model: str, version: str, request: Request, serving: Serving) -> Asked:
    """The feed from JSON, or from JSON and the bytes after it."""
    check_model(serving, model, version)
    media.kind(request, _KNOWN)
    header, binary = _split(request)
    call = _parse(header)
    by_name = {spec.name: spec for spec in serving.interface.inputs}
    feed: dict[str, Any] = {}
    for tensor in call.inputs:
        spec = by_name.get(tensor.name)
        if spec is None:
            raise errors.InputError(
                f"unknown input {tensor.name!r}; the model takes {tensors.listing(serving.interface.inputs)}"
            )
        if tensor.name in feed:
            raise errors.InputError(f"input {tensor.name!r} was sent twice")
        feed[tensor.name] = oip_tensors.decode(tensor, spec, binary)
    binary.end()
    wanted = _wanted(call, serving.engine.output_names)
    return Asked(
        tensors.complete(feed, serving.interface.inputs),
        functools.partial(_answer, serving, call.id, wanted),
    )


def _split(request: Request) -> tuple[bytes, oip_tensors.Binary]:
    body = memoryview(request.body)
    said = request.headers.get(b"inference-header-content-length")
    if said is None:
        return request.text, oip_tensors.Binary(memoryview(b""))
    if not said.isdigit() or len(said) > 18 or int(said) > len(body):
        raise errors.InputError(
            f"Inference-Header-Content-Length is no length within the body of {len(body)} bytes"
        )
    return bytes(body[: int(said)]), oip_tensors.Binary(body[int(said) :])


def _parse(header: bytes) -> _Call:
    try:
        if b"NaN" in header or b"Infinity" in header:
            # What Python's clients write for numbers that are not finite, though it is no JSON.
            return typed.convert(_Call, json.loads(header))
        return typed.read(_Call, header)
    except (msgspec.MsgspecError, ValueError) as error:
        raise errors.InputError(f"the body is no request of the Open Inference Protocol: {error}") from error
    except RecursionError as error:
        raise errors.InputError("the body is nested too deeply") from error


def _wanted(call: _Call, names: Sequence[str]) -> list[tuple[int, bool]]:
    """Place and form of each output that is to be answered."""
    binary = _flag(call.parameters or {}, "binary_data_output", default=False)
    if not call.outputs:
        return [(index, binary) for index in range(len(names))]
    wanted = []
    for item in call.outputs:
        if item.name not in names:
            raise errors.InputError(f"unknown output {item.name!r}; the model gives {', '.join(names)}")
        parameters = item.parameters or {}
        for extension in ("classification", "shared_memory_region"):
            if parameters.get(extension):
                raise errors.InputError(f"output {item.name!r}: {extension} is not supported")
        wanted.append((names.index(item.name), _flag(parameters, "binary_data", default=binary)))
    return wanted


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise errors.InputError(f"parameter {name!r} is neither true nor false")
    return value


def _answer(
    serving: Serving, request_id: str | None, wanted: Sequence[tuple[int, bool]], outputs: Sequence[Any]
) -> Response:
    names = serving.engine.output_names
    encoded = [oip_tensors.encode(names[index], outputs[index], binary=binary) for index, binary in wanted]
    answer: dict[str, Any] = {"model_name": serving.model.name, "model_version": serving.model.version}
    if request_id is not None:
        answer["id"] = request_id
    answer["outputs"] = [described for described, _ in encoded]
    header = msgspec.json.encode(answer)
    if not any(binary for _, binary in wanted):
        return Response(200, header)
    return Response(
        200,
        b"".join((header, *(data for _, data in encoded))),
        OCTETS,
        b"Inference-Header-Content-Length: %d\r\n" % len(header),
    )
