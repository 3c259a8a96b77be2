"""The two models of the comparison: a classifier of four numbers, and a network of MobileNetV2's shape with
random weights, which costs what the real one costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IRIS_ROW = [5.1, 3.5, 1.4, 0.2]
IMAGE_SHAPE = (1, 3, 224, 224)
# Expansion, channels, repeats and stride of each stage of MobileNetV2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def write(folder: Path) -> dict[str, Path]:
    """Both models, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {"iris": folder / "iris" / "model.onnx", "mobilenet": folder / "mobilenet" / "model.onnx"}
    for name, make in (("iris", iris), ("mobilenet", mobilenet)):
        if not places[name].is_file():
            places[name].parent.mkdir(exist_ok=True)
            onnx.save(make(), str(places[name]))
    return places


def iris() -> onnx.ModelProto:
    """Logistic regression as scikit-learn's converter writes it, without the ZipMap."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    model = LogisticRegression(max_iter=500).fit(data.data, data.target)
    sample = data.data[:1].astype(np.float32)
    converted: onnx.ModelProto = to_onnx(
        model, sample, options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3}
    )
    return converted


class _Network:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._random = np.random.default_rng(0)

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        *,
        size: int,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> str:
        name = f"c{len(self.nodes)}"
        shape = (outputs, inputs // groups, size, size)
        values = self._random.standard_normal(shape) * np.sqrt(2 / (shape[1] * size * size))
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), f"{name}.w"))
        self.weights.append(numpy_helper.from_array(np.zeros(outputs, np.float32), f"{name}.b"))
        self.nodes.append(
            helper.make_node(
                "Conv", [x, f"{name}.w", f"{name}.b"], [name],
                kernel_shape=[size, size], strides=[stride, stride], pads=[size // 2] * 4, group=groups,
            )
        )  # fmt: skip
        if not relu:
            return name
        self.nodes.append(helper.make_node("Clip", [name, "zero", "six"], [f"{name}.r"]))
        return f"{name}.r"


def mobilenet() -> onnx.ModelProto:
    """MobileNetV2, 14 MB, one image of 224 by 224."""
    net = _Network()
    net.weights += [
        numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))
    ]
    x, channels = net.conv("image", 3, 32, size=3, stride=2), 32
    for expansion, outputs, repeats, first in _STAGES:
        for repeat in range(repeats):
            stride, wide = (first if repeat == 0 else 1), channels * expansion
            inner = x if expansion == 1 else net.conv(x, channels, wide, size=1)
            inner = net.conv(inner, wide, wide, size=3, stride=stride, groups=wide)
            inner = net.conv(inner, wide, outputs, size=1, relu=False)
            if stride == 1 and channels == outputs:
                net.nodes.append(helper.make_node("Add", [x, inner], [f"{inner}.a"]))
                inner = f"{inner}.a"
            x, channels = inner, outputs
    x = net.conv(x, channels, 1280, size=1)
    net.weights.append(
        numpy_helper.from_array(
            np.random.default_rng(1).standard_normal((1280, 1000)).astype(np.float32), "fc"
        )
    )
    net.nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc"], ["scores"]),
    ]
    graph = helper.make_graph(
        net.nodes,
        "mobilenet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *IMAGE_SHAPE[1:]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1000])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def image() -> Any:
    """The picture that everybody is sent."""
    return np.random.default_rng(2).random(IMAGE_SHAPE, dtype=np.float32)


def bodies(folder: Path) -> None:
    """The requests, as files for the load generator: V2 in JSON and in binary, plain JSON, MLflow's form."""
    picture = image()
    plain = {"iris": [IRIS_ROW], "mobilenet": picture.tolist()}
    flat = {"iris": ([1, 4], IRIS_ROW), "mobilenet": (list(IMAGE_SHAPE), picture.ravel().tolist())}
    inputs = {"iris": "X", "mobilenet": "image"}
    for model, value in plain.items():
        shape, data = flat[model]
        tensor = {"name": inputs[model], "shape": shape, "datatype": "FP32", "data": data}
        (folder / f"{model}.json").write_text(json.dumps({"inputs": {inputs[model]: value}}))
        (folder / f"{model}.v2.json").write_text(json.dumps({"inputs": [tensor]}))
        (folder / f"{model}.inputs.json").write_text(json.dumps({"inputs": value}))
    (folder / "mobilenet.raw").write_bytes(picture.tobytes())
