"""Running an ONNX graph: the only importer of onnxruntime."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# ONNX Runtime's Linux wheels send telemetry home unless this is set before the import, which also starts
# a thread and writes below ~/.cache. Nothing may switch it back on.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from edgeflow_agent import errors
from edgeflow_agent.inference import compiled as compiled_graphs
from edgeflow_agent.inference.compiled import CompiledGraph
from edgeflow_agent.inference.providers import CPU, Choice, choose, outcome
from edgeflow_agent.wire.documents import TensorSpec

logger = logging.getLogger(__name__)

VERSION = str(onnxruntime.__version__)

DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
# An optional input takes the same arrays, or none.
DTYPES |= {f"optional({name})": dtype for name, dtype in DTYPES.items()}
# What scikit-learn converters put at the end of classifiers (ZipMap).
_SEQUENCE_OUTPUTS = ("seq(map(", "seq(tensor(")

Feed = Mapping[str, Any]


_LARGEST_COMPILED = 1 << 30  # an optimised graph is one file, and protobuf holds little more in one


class RunTerminatedError(errors.ModelError):
    """A run was stopped at its deadline."""

    reason = "deadline"


class RunHandle:
    """What stops one run from another thread."""

    __slots__ = ("options", "terminated")

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()
        self.terminated = False

    def terminate(self) -> None:
        """Stop the run; this handle serves no further one."""
        self.terminated = True
        self.options.terminate = True


class Engine:
    """A loaded graph. `run` may be called from several threads at once."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        providers: Sequence[str] = (),
        compiled: Path | None = None,
        digest: str = "",
    ) -> None:
        """`compiled` is a folder for the optimised form of the model whose bundle has that `digest`."""
        choice = choose(providers, onnxruntime.get_available_providers())
        ready = None if compiled is None else _compiled(compiled, path, digest, choice)
        self._session = _load(path, threads, choice, ready)
        self.providers = outcome(choice, self._session.get_providers())
        self.inputs = tuple(_spec(item) for item in self._session.get_inputs())
        self.outputs = tuple(_spec(item) for item in self._session.get_outputs())
        self.on_cpu = self._session.get_providers() == [CPU]
        self.output_names = [item.name for item in self.outputs]
        # `run` of the session first checks in Python what a feed of ours has been made by, and falls back
        # to the processor when another provider fails. On the processor neither is of use, and costs a
        # quarter of the time of a small model.
        bound = getattr(self._session, "_sess", None) if self.on_cpu else None
        self._run = getattr(bound, "run", None) or self._session.run
        _refuse_unservable(self.inputs, self.outputs)

    def run(self, feed: Feed, handle: RunHandle | None = None) -> list[Any]:
        """The outputs in graph order. Raise InputError when the graph refuses the feed, RunTerminatedError
        at the deadline, ModelError otherwise."""
        try:
            return self._run(self.output_names, feed, handle.options if handle else None)  # type: ignore[no-any-return]
        except Exception as error:
            if handle is not None and handle.terminated:
                raise RunTerminatedError("the inference was stopped at its deadline") from error
            if _is_the_callers(error):
                raise errors.InputError(f"the model refuses this input: {_brief(error)}") from error
            raise errors.ModelError(f"the model failed: {_brief(error)}", reason="run") from error

    def warm_up(self, handle: RunHandle | None = None) -> None:
        """One run with zeros. A failure is the model's only where zeros are an input like any other:
        otherwise the made-up values or sizes may be what it cannot bear."""
        try:
            self.run(zeros(self.inputs), handle)
        except RunTerminatedError:
            raise
        except errors.EdgeflowError as error:
            if isinstance(error, errors.ModelError) and _is_memory(error):
                raise errors.ModelError(str(error), reason="load_memory") from error
            if _zeros_must_do(self.inputs):
                raise errors.ModelError(
                    f"the model fails on an input of zeros: {error}", reason="warm_up"
                ) from error
            logger.debug("the warm-up run is left out: %s", error)


def compiled_graph(
    path: Path, *, providers: Sequence[str], compiled: Path | None, digest: str
) -> CompiledGraph | None:
    """The optimised form that an engine with these arguments uses, or makes; None when it has none."""
    choice = choose(providers, onnxruntime.get_available_providers())
    return None if compiled is None else _compiled(compiled, path, digest, choice)


def _compiled(folder: Path, path: Path, digest: str, choice: Choice) -> CompiledGraph | None:
    """The optimised form of a model; None when it has none: it is very large, or not for the processor
    alone."""
    if not digest or choice.names != (CPU,) or path.stat().st_size > _LARGEST_COMPILED:
        return None
    return compiled_graphs.graph(folder, digest, (VERSION, *choice.names))


def _load(path: Path, threads: int, choice: Choice, ready: CompiledGraph | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning burns the second core of a small device while nothing is asked.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4
    names = list(choice.names)
    if ready is not None:
        session = _load_compiled(path, options, names, ready)
        if session is not None:
            return session
    try:
        # By path: a graph given as bytes would look for its weights in the working folder.
        return onnxruntime.InferenceSession(str(path), options, providers=names)
    except Exception as error:
        if _is_memory(error):
            raise errors.ModelError(
                f"the model needs more memory than allowed: {_brief(error)}", reason="load_memory"
            ) from error
        raise errors.ModelError(f"the model cannot be loaded: {_brief(error)}", reason="model") from error


def _load_compiled(path: Path, options: Any, names: list[str], ready: CompiledGraph) -> Any:
    """The session of an optimised graph, which is made if it is not there; None when that does not work."""
    levels = onnxruntime.GraphOptimizationLevel
    try:
        if ready.is_whole():
            options.graph_optimization_level = levels.ORT_DISABLE_ALL
            return onnxruntime.InferenceSession(str(ready.place), options, providers=names)
        options.optimized_model_filepath = str(ready.draft())
        session = onnxruntime.InferenceSession(str(path), options, providers=names)
        ready.keep()
    except Exception as error:  # noqa: BLE001 - whatever it is, the original is there
        logger.warning("the model is served without an optimised form: %s", _brief(error))
        ready.discard()
        options.graph_optimization_level = levels.ORT_ENABLE_ALL
        options.optimized_model_filepath = ""
        return None
    return session


def zeros(inputs: Sequence[TensorSpec], *, batch: int = 1) -> dict[str, Any]:
    """The smallest input that fits the graph: every free dimension is one, the first one `batch`."""
    feed = {}
    for spec in inputs:
        shape = [size if isinstance(size, int) and size >= 0 else 1 for size in spec.shape]
        if shape and not isinstance(spec.shape[0], int):
            shape[0] = batch
        if spec.dtype == "tensor(string)":
            feed[spec.name] = np.full(shape, "", dtype=np.object_)
        else:
            feed[spec.name] = np.zeros(shape, dtype=DTYPES[spec.dtype])
    return feed


def trim_memory() -> None:
    """Give freed memory back to the system: glibc keeps the parsed graph otherwise, which halves what a
    small device has left."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def check_interface(engine: Engine, declared: Sequence[TensorSpec]) -> None:
    """Raise ModelError when the graph's inputs are not those that its deployment declares."""
    if not declared:
        return
    graph = {item.name: item for item in engine.inputs}
    wanted = {item.name: item for item in declared}
    problems = [f"input {name!r} is missing" for name in wanted if name not in graph]
    problems += [f"input {name!r} is new" for name in graph if name not in wanted]
    for name, spec in wanted.items():
        own = graph.get(name)
        if own is None:
            continue
        if own.dtype != spec.dtype:
            problems.append(f"input {name!r} is {own.dtype} instead of {spec.dtype}")
        elif own.shape and spec.shape and len(own.shape) != len(spec.shape):
            problems.append(f"input {name!r} has {len(own.shape)} dimensions instead of {len(spec.shape)}")
    if problems:
        raise errors.ModelError(
            "the model's inputs are not those of its deployment: " + "; ".join(problems), reason="interface"
        )


def _spec(item: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, (int, str)) else None for size in item.shape or ())
    return TensorSpec(name=item.name, dtype=item.type, shape=shape)


def _refuse_unservable(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    for spec in inputs:
        if spec.dtype not in DTYPES:
            raise errors.ModelError(
                f"input {spec.name!r} is {spec.dtype}, which cannot be sent as JSON; "
                "export the model with plain tensor inputs (a Cast node turns bfloat16 into float)",
                reason="unsupported",
            )
    for spec in outputs:
        if not _is_answerable(spec.dtype):
            raise errors.ModelError(
                f"output {spec.name!r} is {spec.dtype}, which cannot be answered; "
                "add a Cast to float at the end of the model",
                reason="unsupported",
            )


def _is_answerable(dtype: str) -> bool:
    if dtype.startswith(_SEQUENCE_OUTPUTS):
        return "bfloat" not in dtype
    return dtype in DTYPES and not dtype.startswith("optional(")


def _zeros_must_do(inputs: Sequence[TensorSpec]) -> bool:
    """Whether a failure on zeros is the model's own: it takes numbers of known sizes. Whole numbers, lists
    and scalars steer a graph (places, sizes, scales), and nothing says that zero is one of those."""
    return all(
        spec.dtype in _FLOATS
        and len(spec.shape) > 1
        and all(isinstance(size, int) for size in spec.shape[1:])
        for spec in inputs
    )


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "bad_alloc" in text or "failed to allocate memory" in text


def _is_the_callers(error: BaseException) -> bool:
    """Whether the feed was refused at the door; a node that fails later is the model's failure, though
    ONNX Runtime calls some of these invalid arguments as well."""
    if isinstance(error, (TypeError, ValueError)):
        return True
    return type(error).__name__ == "InvalidArgument" and "while running" not in str(error)


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:600]
