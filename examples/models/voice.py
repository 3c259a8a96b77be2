"""Serve Silero VAD, which hears whether somebody speaks, frame by frame: its state travels with the caller.

    python examples/models/voice.py /tmp/voice
    edgeflow-agent serve /tmp/voice
    curl -d '{"audio": [0.0, 0.01, …512 samples at 16 kHz…]}' http://127.0.0.1:8080/infer

The answer holds `state`: send it with the next frame, `{"audio": […], "state": {…}}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import destination

PACKAGE = "silero-vad==6.2.3"


def model(cache: Path | None = None) -> Path:
    return destination.out_of_wheel(PACKAGE, "silero_vad/data/silero_vad.onnx", cache)


def steps() -> list[dict[str, Any]]:
    return [
        {"step": "field", "field": "audio"},
        # The graph hears the last 64 samples of the frame before as well.
        {"step": "frame", "length": 512, "context": 64, "longer": "refuse"},
        {"step": "feed", "input": "input"},
        {"step": "constant", "input": "sr", "value": 16000, "dtype": "int64"},
        {"step": "state", "input": "state", "output": "stateN", "shape": [2, 1, 128]},
        {"step": "threshold", "output": "output", "name": "voice", "labels": ["silence", "speech"]},
        {"step": "select", "names": ["voice"]},
    ]


if __name__ == "__main__":
    destination.main(__doc__ or "", "voice", model, steps)
