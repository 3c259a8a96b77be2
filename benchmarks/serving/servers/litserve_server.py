"""LitServe with ONNX: model, input name, port."""

import sys

import litserve
import numpy as np
import onnxruntime


class Onnx(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(sys.argv[1], options)

    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["inputs"][sys.argv[2]], np.float32)

    def predict(self, x: np.ndarray) -> list:
        return self._session.run(None, {sys.argv[2]: x})

    def encode_response(self, output: list) -> dict:
        return {"outputs": [item.tolist() for item in output]}


if __name__ == "__main__":
    litserve.LitServer(Onnx(), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[3]), generate_client_file=False, log_level="warning"
    )
