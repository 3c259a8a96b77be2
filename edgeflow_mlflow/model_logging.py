"""Log an ONNX model with what a device needs: signature, labels, interface, steps and training baseline."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift import build as baseline
from edgeflow_agent.drift import features
from edgeflow_agent.drift.baseline import Source
from edgeflow_agent.drift.features import Described
from edgeflow_agent.steps import FILE as STEPS
from edgeflow_mlflow import declared_steps, errors

logger = logging.getLogger(__name__)

COMPANION = "edgeflow.json"
BASELINE = "baseline.json"
_FOLDER = "extra_files"
_FORMAT = 1
# From here on protobuf cannot hold the weights; below, one file spares devices randomly named ones.
_EXTERNAL_FROM = 2**31 - 2**20
_OUTPUT_SAMPLES = 10_000
_BATCH = 256
_OPSET = 21
_ML_OPSET = 3

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """Samples as the caller gave them, as columns, and as what the graph takes."""

    example: Any
    columns: tuple[str, ...]
    features: Sequence[Described]
    feeds: Arrays = field(default_factory=dict)


def log_model(
    model: Any,
    name: str = "model",
    *,
    samples: Any = None,
    labels: Sequence[Any] | None = None,
    columns: Sequence[str] | None = None,
    outputs: Arrays | None = None,
    steps: Any = None,
    registered_model_name: str | None = None,
    signature: Any = None,
    input_example: Any = None,
    **kwargs: Any,
) -> Any:
    """Log a model to MLflow so that it can be deployed to devices and watched there.

    Args:
        model: An `onnx.ModelProto`, the path of an ONNX file, or a fitted scikit-learn estimator or pipeline
            with numeric inputs, which is converted (needs `pip install 'edgeflow-mlflow[sklearn]'`).
        name: Name of the logged model.
        samples: Training samples: a DataFrame, an array, or a dict of input name to array. From them come the
            signature and the baseline, which is stored with the model (docs/baseline.md says what it holds).
        labels: Class names in the order of the class indices; by default the estimator's `classes_`.
        columns: Column names when `samples` is an array of two axes.
        outputs: The model's outputs on `samples` by output name; by default it is run on at most 10,000.
        steps: What a device does before and after the graph (docs/steps.md): a list of steps, the document as
            a dict, the path of a `steps.json`, or an `edgeflow_agent.steps.Pipeline`.
        registered_model_name: Register a version under this name.
        signature: An MLflow signature, instead of the inferred one.
        input_example: As for `mlflow.onnx.log_model`.
        **kwargs: Everything else that `mlflow.onnx.log_model` takes.

    Returns:
        MLflow's `ModelInfo`.

    Raises:
        InvalidError: The model, its samples, labels or steps do not fit together; nothing was logged.
    """
    # ONNX Runtime's Linux wheels report home unless this stands before the first import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import mlflow.onnx

    onnx_model = _onnx_model(model)
    graph_inputs, graph_outputs = _interface(onnx_model)
    names = _labels(model, labels, graph_outputs)
    pipeline = None if steps is None else declared_steps.checked(steps, graph_inputs, graph_outputs)
    prepared = None
    results: Arrays = {}
    if samples is not None:
        prepared = _samples(samples, columns or getattr(model, "feature_names_in_", None), graph_inputs)
        results = outputs if outputs is not None else _run(onnx_model, prepared.feeds)
        if signature is None:
            signature = mlflow.models.infer_signature(prepared.example, _typed(results) or None)
    with tempfile.TemporaryDirectory() as folder:
        files = [*(kwargs.pop("extra_files", None) or ()), str(Path(folder) / COMPANION)]
        companion = {
            "format": _FORMAT,
            "labels": list(names),
            "columns": list(prepared.columns) if prepared else [],
            "inputs": graph_inputs,
            "outputs": graph_outputs,
            "baseline": BASELINE if prepared else "",
            "steps": STEPS if pipeline else "",
        }
        if prepared is not None:
            built = baseline.build(prepared.features, features.of_outputs(_arrays(results), names))
            (Path(folder) / BASELINE).write_bytes(baseline.encode(built))
            files.append(str(Path(folder) / BASELINE))
        if pipeline is not None:
            (Path(folder) / STEPS).write_bytes(pipeline.encode())
            files.append(str(Path(folder) / STEPS))
        (Path(folder) / COMPANION).write_text(json.dumps(companion, indent=2) + "\n", encoding="utf-8")
        noted = {"format": _FORMAT, "labels": list(names)}
        if prepared is not None:
            noted["baseline"] = f"{_FOLDER}/{BASELINE}"
        if pipeline is not None:
            noted["steps"] = f"{_FOLDER}/{STEPS}"
        # MLflow would find the requirements by loading the model in a process of its own.
        if not kwargs.keys() & {"pip_requirements", "conda_env"}:
            kwargs["pip_requirements"] = mlflow.onnx.get_default_pip_requirements()
        kwargs.setdefault("save_as_external_data", onnx_model.ByteSize() >= _EXTERNAL_FROM)
        return mlflow.onnx.log_model(
            onnx_model,
            name=name,
            registered_model_name=registered_model_name,
            signature=signature,
            input_example=input_example,
            extra_files=files,
            metadata={**(kwargs.pop("metadata", None) or {}), "edgeflow": noted},
            **kwargs,
        )


def _onnx_model(model: Any) -> Any:
    import onnx

    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, (str, os.PathLike)):
        try:
            return onnx.load(os.fspath(model))
        except Exception as error:
            raise errors.InvalidError(
                f"{os.fspath(model)!r} cannot be read as an ONNX model: {error}"
            ) from error
    if hasattr(model, "predict") and hasattr(model, "get_params"):
        return _converted(model)
    raise errors.InvalidError(
        f"log_model takes an onnx.ModelProto, the path of an ONNX file or a scikit-learn estimator, "
        f"not {type(model).__name__}; export the model to ONNX first (PyTorch: torch.onnx.export)"
    )


def _converted(estimator: Any) -> Any:
    try:
        import skl2onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise errors.InvalidError(
            "converting a scikit-learn estimator needs skl2onnx: pip install 'edgeflow-mlflow[sklearn]'"
        ) from error
    count = getattr(estimator, "n_features_in_", None)
    if count is None:
        raise errors.InvalidError(
            f"this {type(estimator).__name__} is not fitted: call fit() before log_model"
        )
    # A table of class scores instead of a list of dicts, which no device could send on.
    has_scores = hasattr(estimator, "predict_proba")
    try:
        return skl2onnx.convert_sklearn(
            estimator,
            initial_types=[("input", FloatTensorType([None, count]))],
            options={"zipmap": False} if has_scores else None,
            target_opset={"": _OPSET, "ai.onnx.ml": _ML_OPSET},
        )
    except Exception as error:
        raise errors.InvalidError(
            f"this {type(estimator).__name__} cannot be converted to ONNX with one float input of {count} "
            f"columns: {error}. Convert it with skl2onnx yourself and pass the result"
        ) from error


def _labels(model: Any, labels: Sequence[Any] | None, outputs: list[dict[str, Any]]) -> tuple[str, ...]:
    if labels is None:
        classes = getattr(model, "classes_", None)
        labels = classes.tolist() if isinstance(classes, np.ndarray) and classes.ndim == 1 else ()
    names = tuple(str(label) for label in labels)
    if len(set(names)) != len(names):
        raise errors.InvalidError("two labels have the same name")
    widths = [item["shape"][1] for item in outputs if len(item["shape"]) == 2]
    known = [width for width in widths if isinstance(width, int) and width > 1]
    if names and known and len(names) not in known:
        raise errors.InvalidError(f"{len(names)} labels for a model that scores {known[0]} classes")
    return names


def _interface(onnx_model: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    import onnx

    weights = {item.name for item in onnx_model.graph.initializer}

    def describe(value: Any) -> dict[str, Any]:
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
            for dim in tensor.shape.dim
        ]
        return {
            "name": value.name,
            "dtype": onnx.TensorProto.DataType.Name(tensor.elem_type).lower(),
            "shape": shape,
        }

    inputs = [describe(value) for value in onnx_model.graph.input if value.name not in weights]
    return inputs, [describe(value) for value in onnx_model.graph.output]


def _samples(samples: Any, columns: Sequence[str] | None, inputs: list[dict[str, Any]]) -> _Samples:
    if isinstance(samples, Mapping):
        return _by_input({str(name): np.asarray(value) for name, value in samples.items()}, inputs)
    if hasattr(samples, "columns") and hasattr(samples, "dtypes"):
        frame = samples
    else:
        array = np.asarray(samples)
        if array.ndim != 2 or columns is None:
            return _by_input({inputs[0]["name"]: array}, inputs)
        if array.shape[1] != len(columns):
            raise errors.InvalidError(f"{len(columns)} column names for samples of {array.shape[1]} columns")
        import pandas as pd

        frame = pd.DataFrame(array, columns=[str(name) for name in columns])
    return _by_column(frame, inputs)


def _by_column(frame: Any, inputs: list[dict[str, Any]]) -> _Samples:
    names = tuple(str(name) for name in frame.columns)
    if len(set(names)) != len(names):
        raise errors.InvalidError("two columns of the samples have the same name")
    if len(frame) == 0:
        raise errors.InvalidError("the samples are empty")
    feeds: dict[str, npt.NDArray[Any]] = {}
    if len(inputs) == 1:
        width = inputs[0]["shape"][-1] if inputs[0]["shape"] else None
        if isinstance(width, int) and width != len(names):
            raise errors.InvalidError(
                f"the model's input {inputs[0]['name']!r} takes {width} columns, the samples have "
                f"{len(names)}: leave out the target column"
            )
        feeds[inputs[0]["name"]] = _cast(frame.to_numpy(), inputs[0])
        place = {name: Source(input=inputs[0]["name"], column=index) for index, name in enumerate(names)}
    elif {item["name"] for item in inputs} == set(names):
        for item in inputs:
            feeds[item["name"]] = _cast(frame[item["name"]].to_numpy().reshape(-1, 1), item)
        place = {name: Source(input=name, column=0) for name in names}
    else:
        raise errors.InvalidError(
            f"the model has the inputs {[item['name'] for item in inputs]}, the samples the columns "
            f"{list(names)}: pass samples as a dict of input name to array"
        )
    described = [
        Described(name, _values(frame.iloc[:, index], feeds, place[name]), place[name])
        for index, name in enumerate(names)
    ]
    return _Samples(example=frame, columns=names, features=described, feeds=feeds)


def _values(series: Any, feeds: Arrays, source: Source) -> npt.NDArray[Any]:
    """A column as the graph takes it: a device sees 0.1 as the number of 32 bits that is nearest."""
    given = feeds[source.input]
    return given[:, source.column] if given.dtype.kind in "iuf" else _plain(series)


def _plain(series: Any) -> npt.NDArray[Any]:
    """A column as an array: pandas' own number types become NumPy's, with NaN for what is missing."""
    if series.dtype.kind in "iuf":
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(series.to_numpy(dtype=object))


def _by_input(arrays: dict[str, npt.NDArray[Any]], inputs: list[dict[str, Any]]) -> _Samples:
    wanted = {item["name"]: item for item in inputs}
    if arrays.keys() != wanted.keys():
        raise errors.InvalidError(
            f"the model has the inputs {sorted(wanted)}, the samples have {sorted(arrays)}"
        )
    if len({len(array) if array.ndim else 0 for array in arrays.values()} | {0}) != 2:
        raise errors.InvalidError("the samples are empty, or their inputs differ in length")
    feeds = {name: _cast(array, wanted[name]) for name, array in arrays.items()}
    described = [
        feature
        for name, array in arrays.items()
        # Numbers as the graph takes them: see _values.
        for feature in features.of_input(name, feeds[name] if feeds[name].dtype.kind in "iuf" else array)
    ]
    example: Any = feeds if len(feeds) > 1 else next(iter(feeds.values()))
    return _Samples(example=example, columns=(), features=described, feeds=feeds)


def _cast(array: npt.NDArray[Any], item: dict[str, Any]) -> npt.NDArray[Any]:
    import onnx

    if item["dtype"] == "string":
        return np.asarray(array.astype(str), dtype=object)
    try:
        number = onnx.TensorProto.DataType.Value(item["dtype"].upper())
        return np.asarray(array, dtype=onnx.helper.tensor_dtype_to_np_dtype(number))
    except (ValueError, TypeError, KeyError) as error:
        raise errors.InvalidError(
            f"the samples cannot be given to the input {item['name']!r} of type {item['dtype']}: {error}"
        ) from error


def _run(onnx_model: Any, feeds: Arrays) -> Arrays:
    """The model's outputs on its training samples, evenly picked when there are very many."""
    if onnx_model.ByteSize() >= _EXTERNAL_FROM:
        logger.warning("the model is too large to be run from memory: its outputs get no baseline")
        return {}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    total = len(next(iter(feeds.values())))
    picked = np.unique(np.linspace(0, total - 1, min(total, _OUTPUT_SAMPLES)).astype(int))
    try:
        session = onnxruntime.InferenceSession(
            onnx_model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        # A graph with a fixed batch takes whole batches only; what is left over is not run.
        first = session.get_inputs()[0].shape[:1]
        size = first[0] if first and isinstance(first[0], int) else 0
        end = len(picked) - len(picked) % size if size else len(picked)
        batches = [
            picked[start : min(start + (size or _BATCH), end)] for start in range(0, end, size or _BATCH)
        ]
        parts = [session.run(None, {name: array[rows] for name, array in feeds.items()}) for rows in batches]
    except Exception as error:
        raise errors.InvalidError(f"the model does not run on its samples: {error}") from error
    if not parts:
        return {}
    found = {}
    for index, item in enumerate(session.get_outputs()):
        pieces = [part[index] for part in parts]
        if all(isinstance(piece, np.ndarray) and piece.ndim for piece in pieces):
            found[item.name] = np.concatenate(pieces)
    return found


def _typed(results: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Outputs as MLflow can describe them: text as a text type, not as objects."""
    return {
        name: np.asarray(array).astype(str) if np.asarray(array).dtype == object else np.asarray(array)
        for name, array in results.items()
    }


def _arrays(results: Arrays) -> dict[str, npt.NDArray[Any]]:
    return {name: np.asarray(array) for name, array in results.items()}
