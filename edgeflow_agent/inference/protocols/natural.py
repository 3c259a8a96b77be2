"""What a person would send: `POST /infer`."""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from edgeflow_agent.inference import tensors
from edgeflow_agent.inference.messages import JSON, OCTETS, Request, Response
from edgeflow_agent.inference.protocols import media, raw
from edgeflow_agent.inference.protocols.asked import Asked
from edgeflow_agent.inference.refusals import RefusedError
from edgeflow_agent.inference.slot import Serving

_IMAGES = (b"image/jpeg", b"image/png")
_KNOWN = (JSON, OCTETS, *_IMAGES)
_TRUE = ("1", "true", "yes")


def read(request: Request, serving: Serving) -> Asked:
    """The feed from JSON, from raw bytes or from an image, through the model's own steps if it has some."""
    kind = media.kind(request, _KNOWN)
    steps = serving.steps
    answer = raw.answer if _wants_bytes(request, serving) else _answer
    if kind in _IMAGES and (steps is None or not steps.takes_image):
        raise RefusedError(
            415,
            "content_type",
            "this model does not take images; log it with steps that decode one "
            "(edgeflow_mlflow.log_model(steps=…)), or send the tensor",
        )
    if steps is not None and steps.takes_input:
        feed = steps.before(tensors.parse(request.body) if kind == JSON else request.body)
        return Asked(feed, functools.partial(answer, serving, request.query, feed))
    if kind == JSON:
        body = request.body
        plain = serving.quick_decode(body) or tensors.decode(tensors.parse(body), serving.interface)
    else:
        plain = raw.decode(request.body, serving.interface, _shape(request))
    return Asked(plain, functools.partial(answer, serving, request.query, None))


def _wants_bytes(request: Request, serving: Serving) -> bool:
    """Whether the answer is to be the bytes of the only output. Raise RefusedError where that cannot be."""
    if request.headers.get(b"accept") != OCTETS:
        return False
    steps = serving.steps
    if (steps is None or not steps.gives_answer) and raw.has_form(serving.interface.outputs):
        return True
    raise RefusedError(
        406,
        "not_acceptable",
        "only a model with one output of numbers, and without steps after it, answers as "
        "application/octet-stream; accept application/json, or use /v2 with binary_data_output",
    )


def _shape(request: Request) -> str:
    header = request.headers.get(b"tensor-shape", b"").decode("latin-1")
    if not request.query:
        return header
    return _parameters(request.query).get("shape", [header])[-1]


def _parameters(query: bytes) -> Mapping[str, list[str]]:
    try:
        return urllib.parse.parse_qs(query.decode("latin-1"), max_num_fields=20)
    except ValueError:
        return {}


def _answer(serving: Serving, query: bytes, feed: Any, outputs: Sequence[Any]) -> Response:
    answer: dict[str, Any] = {}
    names, steps = serving.engine.output_names, serving.steps
    own = steps is not None and steps.gives_answer
    if steps is not None and own:
        answer["result"] = steps.after(dict(zip(names, outputs, strict=True)), feed)
    if not own or (query and _parameters(query).get("outputs", ["false"])[-1] in _TRUE):
        answer["outputs"] = {name: tensors.encode(value) for name, value in zip(names, outputs, strict=True)}
    answer["model"] = serving.encoded_name
    if serving.interface.labels and not own:
        labels = tensors.predicted_labels(outputs, serving.interface.labels)
        if labels is not None:
            answer["labels"] = labels
    return Response(200, msgspec.json.encode(answer))
