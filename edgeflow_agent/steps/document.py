"""The file `steps.json`: reading, checking and writing it. docs/steps.md describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edgeflow_agent import errors, typed
from edgeflow_agent.steps import answers, boxes, images, inputs, scores, signals, tables
from edgeflow_agent.steps.flow import After, Before

FORMAT = 1
MAX_BYTES = 2**20
MAX_STEPS = 64

BEFORE: dict[str, type[Before]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        images.DecodeImage, images.Pad, images.Resize, images.Normalise, images.Layout,
        tables.Category, tables.Columns, tables.ScaleColumns,
        signals.BytesWindow, signals.Frame,
        inputs.Field, inputs.Give, inputs.Constant, inputs.State,
    )
}  # fmt: skip
AFTER: dict[str, type[After]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        scores.Labels, scores.TopK, scores.Threshold, boxes.Detections,
        answers.Select, answers.Rename, answers.Round,
    )
}  # fmt: skip


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steps in their order."""

    format: int = FORMAT
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()


def parse(source: bytes | Mapping[str, Any] | Sequence[Any]) -> tuple[tuple[Before, ...], tuple[After, ...]]:
    """The steps of a document, or of a plain list of steps, in which each one's name says where it belongs.
    Raise ModelError that names the entry and what is wrong with it."""
    source = _decoded(source if isinstance(source, bytes) else _as_json(source))
    if isinstance(source, list):
        source = _sorted(source)
    if not isinstance(source, Mapping):
        raise _wrong('the document must be an object: {"format": 1, "before": […], "after": […]}')
    try:
        document = typed.convert(Document, dict(source))
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from error
    if document.format != FORMAT:
        raise _wrong(f"the document has format {document.format}, and this release reads {FORMAT}: update it")
    if len(document.before) + len(document.after) > MAX_STEPS:
        raise _wrong(f"the document has more than {MAX_STEPS} steps")
    return (
        tuple(_step(f"before[{index}]", item, BEFORE) for index, item in enumerate(document.before)),
        tuple(_step(f"after[{index}]", item, AFTER) for index, item in enumerate(document.after)),
    )


def encode(before: Sequence[Before], after: Sequence[After]) -> bytes:
    """The document of these steps: the same steps give the same bytes."""
    document = Document(before=tuple(before), after=tuple(after))
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _as_json(source: Any) -> bytes:
    """What is given in Python becomes what the file will hold, so that both are the same: NumPy's numbers
    are numbers, and what JSON cannot hold is refused here."""
    try:
        return msgspec.json.encode(source, enc_hook=_plain)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _wrong(f"the document cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no part of a step")


def _decoded(content: bytes) -> Any:
    if len(content) > MAX_BYTES:
        raise _wrong(f"the document has over {MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(f"the document is not JSON: {error}") from error


def _sorted(steps: Sequence[Any]) -> dict[str, Any]:
    first = [item for item in steps if not _is_after(item)]
    behind = [item for item in steps if _is_after(item)]
    if list(steps) != [*first, *behind]:
        raise _wrong("in a plain list the steps before the graph come first, then those after it")
    return {"before": first, "after": behind}


def _is_after(item: Any) -> bool:
    word = item.get("step") if isinstance(item, Mapping) else None
    return isinstance(word, str) and word in AFTER


def _step(where: str, item: Any, kinds: Mapping[str, type[Any]]) -> Any:
    if not isinstance(item, Mapping) or not isinstance(item.get("step"), str):
        raise _wrong(f'{where}: a step is an object with its name: {{"step": "…"}}')
    word = item["step"]
    kind = kinds.get(word)
    if kind is None:
        others = AFTER if kinds is BEFORE else BEFORE
        hint = (
            f"it belongs to {'after' if kinds is BEFORE else 'before'}"
            if word in others
            else f"there are {', '.join(sorted(kinds))}"
        )
        raise _wrong(f"{where}: no step {word[:60]!r} is known here; {hint}")
    try:
        return typed.convert(kind, dict(item))
    except msgspec.ValidationError as error:
        raise _wrong(f"{where} {word}: {error}") from error


def _wrong(message: str) -> errors.ModelError:
    return errors.ModelError(f"steps.json: {message}", reason="steps")
