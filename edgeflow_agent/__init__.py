"""The device side of Edgeflow: a small process that serves an ONNX model, alone or managed."""
