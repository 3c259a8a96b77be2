"""MLflow's scoring protocol: `POST /invocations`, answered as MLflow's own server does for ONNX models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgeflow_agent import errors
from edgeflow_agent.inference import tensors
from edgeflow_agent.inference.messages import JSON, Request, Response
from edgeflow_agent.inference.protocols import frames, media
from edgeflow_agent.inference.protocols.asked import Asked
from edgeflow_agent.inference.slot import Serving
from edgeflow_agent.wire.documents import Interface

if TYPE_CHECKING:  # a model without steps does not load them
    from edgeflow_agent.steps import Pipeline
    from edgeflow_agent.steps.flow import Feed

_CSV = b"text/csv"
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def read(request: Request, serving: Serving) -> Asked:
    """The feed from one of MLflow's forms, through the model's own steps if it has some."""
    interface, steps = serving.interface, serving.steps
    kind = media.kind(request, (JSON, _CSV))
    if steps is not None and steps.takes_input:
        return _through(steps, kind, request, serving)
    if kind == _CSV:
        value: Any = frames.from_csv(request.text, interface)
    else:
        value = _form(tensors.parse(request.text, constants=True), interface)
    # MLflow makes a table of whatever is sent to a model whose signature has columns.
    as_rows = isinstance(value, frames.Frame) or bool(interface.columns)
    if isinstance(value, frames.Frame):
        feed = frames.feed(value, interface)
    else:
        feed = tensors.decode(value, interface)
    return Asked(feed, functools.partial(_answer, serving, as_rows, None))


def _through(steps: Pipeline, kind: bytes, request: Request, serving: Serving) -> Asked:
    """The fields are those that the steps take; the graph's own columns say nothing of them."""
    if kind == _CSV:
        value: Any = frames.guessed_csv(request.text)
    else:
        value = _framed(*_said(tensors.parse(request.text, constants=True)))
    as_rows = isinstance(value, frames.Frame)
    feed = steps.before(frames.as_sent(value) if as_rows else value)
    return Asked(feed, functools.partial(_answer, serving, as_rows, feed))


def _said(body: Any) -> tuple[str, Any]:
    """Which form a body has, and what it holds."""
    given = [name for name in _FORMS if name in body] if isinstance(body, dict) else []
    if len(given) != 1:
        raise errors.InputError(f"the body must be a JSON object with exactly one of {', '.join(_FORMS)}")
    # As with MLflow, an ONNX model has no use for parameters; what else stands there is left out.
    if not isinstance(body.get("params", {}), (dict, type(None))):
        raise errors.InputError("params is not an object")
    return given[0], body[given[0]]


def _framed(form: str, value: Any) -> Any:
    """A table where the form says that it is one, else the value as it came."""
    if form == "dataframe_split":
        return frames.split(value)
    return frames.records(value) if form == "dataframe_records" else value


def _form(body: Any, interface: Interface) -> Any:
    value = _framed(*_said(body))
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return _instances(value, interface)
    names = {spec.name for spec in interface.inputs}
    if isinstance(value, dict) and interface.columns and (not value.keys() <= names or _by_column(interface)):
        return frames.by_column(value)
    return value


def _by_column(interface: Interface) -> bool:
    return [spec.name for spec in interface.inputs] == [item.name for item in interface.columns]


def _instances(value: list[dict[str, Any]], interface: Interface) -> Any:
    """Objects by column are rows; by input they are the elements of one batch each."""
    names = {spec.name for spec in interface.inputs}
    if interface.columns or not all(item.keys() <= names for item in value):
        return frames.records(value)
    if any(item.keys() != value[0].keys() for item in value):
        raise errors.InputError("the instances do not name the same inputs")
    return {name: [item[name] for item in value] for name in value[0]}


def _answer(serving: Serving, as_rows: bool, before: Feed | None, outputs: Sequence[Any]) -> Response:
    by_name = dict(zip(serving.engine.output_names, outputs, strict=True))
    if serving.steps is not None and serving.steps.gives_answer:
        result = serving.steps.after(by_name, before)
        table = _table(result, _rows_of) if as_rows else None
        return _predicted(result if table is None else table)
    predictions = _rows(by_name) if as_rows else None
    if predictions is None:
        predictions = {name: tensors.encode(value) for name, value in by_name.items()}
    return _predicted(predictions)


def _predicted(predictions: Any) -> Response:
    return Response(200, msgspec.json.encode({"predictions": predictions}))


def _rows(outputs: Mapping[str, Any]) -> Any:
    """A table with a column per output, as MLflow makes it: of all values of each, one after the other.
    Where they are not equally many MLflow fails; then a row holds what each output has for it, and if even
    that is not equally much, None."""
    table = _table(outputs, _flat)
    return _table(outputs, _rows_of) if table is None else table


def _table(outputs: Mapping[str, Any], cut: Callable[[Any], Any]) -> Any:
    columns = [cut(value) for value in outputs.values()]
    if len({len(column) for column in columns}) != 1:
        return None
    return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _flat(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.reshape(-1).tolist()
    return tensors.encode(value) if isinstance(value, list) else [tensors.encode(value)]


def _rows_of(value: Any) -> Any:
    encoded = tensors.encode(value)
    return encoded if isinstance(encoded, list) else [encoded]
