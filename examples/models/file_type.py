"""Serve magika, which tells the type of a file from its bytes, with its own thresholds as declared steps.

pip install magika
python examples/models/file_type.py /tmp/file-type
edgeflow-agent serve /tmp/file-type
curl --data-binary @setup.cfg -H 'Content-Type: application/octet-stream' http://127.0.0.1:8080/infer
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import destination

PACKAGE = "magika==1.0.3"
_FOLDER = "magika/models/standard_v3_3"


def model(cache: Path | None = None) -> Path:
    return destination.out_of_wheel(PACKAGE, f"{_FOLDER}/model.onnx", cache)


def steps(cache: Path | None = None) -> list[dict[str, Any]]:
    """What magika does around its graph, out of its own tables. Files of fewer than eight bytes, which it
    names without the graph, are refused."""
    config = json.loads(destination.out_of_wheel(PACKAGE, f"{_FOLDER}/config.min.json", cache).read_text())
    kinds = json.loads(
        destination.out_of_wheel(PACKAGE, "magika/config/content_types_kb.min.json", cache).read_text()
    )
    labels, renamed = config["target_labels_space"], config["overwrite_map"]
    return [
        {
            "step": "bytes_window",
            "first": config["beg_size"],
            "last": config["end_size"],
            "padding": config["padding_token"],
            "block": config["block_size"],
            "minimum": config["min_file_size_for_dl"],
            "strip": True,
        },
        {"step": "feed", "input": "bytes"},
        {
            "step": "labels",
            "output": "target_label",
            "name": "type",
            "labels": labels,
            "threshold": config["medium_confidence_threshold"],
            "thresholds": config["thresholds"],
            # Unsure, it still knows a text from other files.
            "below": {
                label: "txt" if kinds[renamed.get(label, label)]["is_text"] else "unknown" for label in labels
            },
            "rename": renamed,
        },
        {"step": "select", "names": ["type"]},
    ]


if __name__ == "__main__":
    destination.main(__doc__ or "", "file-type", model, steps)
