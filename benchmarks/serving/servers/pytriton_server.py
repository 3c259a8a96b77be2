"""Triton by pytriton with ONNX: model, input name, port."""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
(first,) = session.get_inputs()
kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


@batch
def infer(**inputs: np.ndarray) -> dict:
    names = [item.name for item in session.get_outputs()]
    values = session.run(names, inputs)
    # Triton wants a dimension besides the batch.
    return {n: v[:, None] if v.ndim == 1 else v for n, v in zip(names, values, strict=True)}


port = int(sys.argv[3])
settings = TritonConfig(
    http_port=port, grpc_port=port + 1, metrics_port=port + 2, http_address="127.0.0.1", log_verbose=0
)
with Triton(config=settings) as triton:
    triton.bind(
        model_name="model",
        infer_func=infer,
        inputs=[
            Tensor(
                name=sys.argv[2],
                dtype=np.float32,
                shape=tuple(-1 if not isinstance(n, int) else n for n in first.shape[1:]),
            )
        ],
        outputs=[
            Tensor(
                name=item.name,
                dtype=kinds[item.type],
                shape=tuple(-1 if not isinstance(n, int) else n for n in item.shape[1:]) or (1,),
            )
            for item in session.get_outputs()
        ],
        config=ModelConfig(max_batch_size=8),
    )
    triton.serve()
