"""What an MLmodel file says of an ONNX model. Anybody may have written it: every part is looked at before
it is used, and what is odd is said with its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from edgeflow_agent.wire import documents
from edgeflow_mlflow import errors


@dataclass(frozen=True, kw_only=True)
class MLmodel:
    """The ONNX file, the columns of the signature, and the class labels."""

    entry: str
    columns: tuple[dict[str, str], ...] = ()
    labels: tuple[str, ...] = ()


def parse(text: str) -> MLmodel:
    """Read the file's text; raise UnprocessableError when it is no ONNX model, or not readable."""
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise errors.UnprocessableError(f"the MLmodel file cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise _odd("", found, "sections")
    own = _section(_section(found, "metadata"), "edgeflow", "metadata.")
    return MLmodel(entry=_entry(found), columns=tuple(_columns(found)), labels=labels(own.get("labels")))


def labels(found: Any) -> tuple[str, ...]:
    """Class labels as somebody wrote them down; absent ones are none."""
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(item, str | int | float) for item in found):
        raise errors.UnprocessableError(
            "the labels of the model are not a list of words: log it again with edgeflow_mlflow.log_model"
        )
    return tuple(str(item) for item in found)


def _entry(mlmodel: dict[str, Any]) -> str:
    flavors = _section(mlmodel, "flavors")
    if "onnx" not in flavors:
        have = ", ".join(sorted({str(name) for name in flavors} - {"python_function"})) or "none"
        raise errors.UnprocessableError(
            f"only ONNX models can go to a device, and this one has the flavor {have}: "
            "convert and log it with edgeflow_mlflow.log_model"
        )
    if flavors["onnx"] is None:
        raise _odd("flavors.onnx", None, "a section")
    entry = _section(flavors, "onnx", "flavors.").get("data", "model.onnx")
    if not isinstance(entry, str):
        raise _odd("flavors.onnx.data", entry, "a file name")
    if not documents.FILE_NAME.fullmatch(entry):
        raise errors.UnprocessableError(
            f"the model's file name {entry[:120]!r} cannot be used on a device: give it a plain name beside "
            "the MLmodel file"
        )
    return entry


def _columns(mlmodel: dict[str, Any]) -> list[dict[str, str]]:
    text = _section(mlmodel, "signature").get("inputs")
    if text is None:
        return []
    if not isinstance(text, str):
        raise _odd("signature.inputs", text, "a text")
    try:
        inputs = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return []
    if not isinstance(inputs, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str | int) and item.get("type") != "tensor"
        for item in inputs
    ):
        return []
    return [{"name": str(item["name"]), "type": str(item.get("type", "double"))} for item in inputs]


def _section(within: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
    """A part of the file; an absent one is empty."""
    found = within.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _odd(f"{where}{key}", found, "a section")
    return found


def _odd(what: str, found: object, wanted: str) -> errors.UnprocessableError:
    place = f"{what} of the MLmodel file" if what else "the MLmodel file"
    kind = "nothing" if found is None else f"a {type(found).__name__}"
    return errors.UnprocessableError(f"{place} holds {kind} instead of {wanted}: log the model again")
