"""A BentoML service with ONNX."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Onnx:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    @bentoml.api(route="/infer")
    def infer(self, inputs: dict) -> dict:
        name = os.environ["INPUT"]
        found = self._session.run(None, {name: np.asarray(inputs[name], np.float32)})
        return {"outputs": [item.tolist() for item in found]}
