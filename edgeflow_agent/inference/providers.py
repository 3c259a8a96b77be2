"""Which execution provider runs a graph: what was asked for, what this device has, and why it came out so.

Short names stand for ONNX Runtime's own: `cuda` for `CUDAExecutionProvider`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgeflow_agent import errors

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"
# What is taken by itself when nobody asks, in this order.
_BY_ITSELF = ("CUDAExecutionProvider", "CoreMLExecutionProvider", CPU)
_ONLY_WHEN_ASKED = {
    "TensorrtExecutionProvider": "it builds an engine for minutes at the first load",
    "OpenVINOExecutionProvider": "it may compute in lower precision than the graph asks for",
}
_SHORT = {
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "directml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "cpu": CPU,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The providers to try, in order, always with the processor last; `reasons` says for each that was
    looked at what became of it."""

    names: tuple[str, ...]
    reasons: tuple[str, ...]


def full_name(word: str) -> str:
    """ONNX Runtime's name for a provider; raise ConfigError that names the nearest known."""
    word = word.strip()
    if word.endswith(_SUFFIX):
        return word
    found = _SHORT.get(word.lower())
    if found is None:
        import difflib  # only somebody who mistyped needs it

        near = difflib.get_close_matches(word.lower(), _SHORT, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_SHORT)}"
        raise errors.ConfigError(f"there is no execution provider {word!r}; {hint}")
    return found


def choose(asked: Sequence[str], available: Sequence[str]) -> Choice:
    """What to try: what was asked for as far as this build of ONNX Runtime has it, else what it has."""
    names: list[str] = []
    reasons: list[str] = []
    for word in asked or _BY_ITSELF:
        name = _SHORT.get(word.lower(), word)
        if name in available:
            names.append(name)
            reasons.append(f"{_short(name)}: {'asked for' if asked else 'found'}")
        elif asked:
            reasons.append(f"{_short(name)}: asked for, but this build of onnxruntime does not have it")
    if not asked:
        reasons += [
            f"{_short(name)}: found, used only when asked for, as {why}"
            for name, why in _ONLY_WHEN_ASKED.items()
            if name in available
        ]
    if CPU not in names:
        names.append(CPU)
        reasons.append("cpu: for what the others cannot run")
    return Choice(names=tuple(names), reasons=tuple(reasons))


def outcome(choice: Choice, active: Sequence[str]) -> str:
    """What a loaded graph runs on, and why, in one line."""
    lost = [
        f"{_short(name)}: did not start (driver or device missing?)"
        for name in choice.names
        if name not in active
    ]
    return f"{', '.join(_short(name) for name in active)} ({'; '.join([*choice.reasons, *lost])})"


def _short(name: str) -> str:
    for word, full in _SHORT.items():
        if full == name:
            return word
    return name.removesuffix(_SUFFIX).lower()
