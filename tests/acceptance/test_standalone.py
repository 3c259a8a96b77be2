"""The agent as a server of models from any MLflow's registry: over plain HTTP, without mlflow."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness import BIN, ROOT, Process, Server, command, request, until

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def test_a_version_out_of_a_registry(tmp_path: Path) -> None:
    server = Server(tmp_path).start()
    state = tmp_path / "state"
    words = [str(BIN / "edgeflow-agent"), "serve", "models:/iris/1", "--port", "0", "--state-dir", str(state)]
    # Whoever imports mlflow here stops at once.
    (tmp_path / "without" / "mlflow").mkdir(parents=True)
    (tmp_path / "without" / "mlflow" / "__init__.py").write_text("raise SystemExit('mlflow was imported')\n")
    environment = {"PYTHONPATH": f"{tmp_path / 'without'}:{ROOT}", "MLFLOW_TRACKING_URI": server.address}
    agent = Process(words, tmp_path, "alone", environment)
    try:
        command(
            "python", str(ROOT / "examples" / "train_iris.py"), environment=server.environment_of_clients()
        )
        for _ in (1, 2):
            agent.start()
            url = until(lambda: re.search(r"serving iris at (http\S+)", agent.text()), "the agent")[1]
            answer = request("POST", f"{url}/infer", FLOWER)
            assert answer.status == 200, answer.body
            assert answer.json["labels"] == ["setosa"]
            assert answer.json["model"] == {"name": "iris", "version": "1"}
            agent.stop()
            agent.log.unlink()
            server.stop()  # the second start finds it on this disk
    finally:
        agent.stop()
        server.stop()
