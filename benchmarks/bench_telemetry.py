"""Windows of telemetry a second on SQLite, beside MLflow's own traffic; and what judging them costs.

    python benchmarks/bench_telemetry.py [--seconds 30] [--windows 10000]

`mlflow server --app-name edgeflow` with four workers. Devices post windows of ten features, 25 at once, as
quickly as they can, while clients of MLflow log metrics and read runs. Goals: 1,000 windows a second, a
p99 of MLflow's calls of at most twice what it is alone, and a second for each 1,000 windows that are judged
(docs/telemetry.md has figures).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import fleet as parts
import mlflow
import msgspec
import numpy as np
import requests

import edgeflow_mlflow
from edgeflow_agent.drift import baseline_file, record, sketch
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_agent.wire import telemetry
from edgeflow_agent.wire.telemetry import Latency, Requests, TelemetryWindow
from edgeflow_mlflow import config
from edgeflow_mlflow.api import records
from edgeflow_mlflow.services import drift, opening
from edgeflow_mlflow.services import telemetry as ingest
from tests.harness import Server, request
from tests.server.watched_device import fleet, values

FEATURES, SAMPLES, BATCH = 10, 500, 25
# So many windows a second are made beforehand.
MOST = 3000
RNG = np.random.default_rng(1)
_HEADERS = {"Content-Type": "application/json"}


class Source:
    """Windows of what one device saw, different ones, made before the clock runs."""

    def __init__(self, digest: str, baseline: Baseline) -> None:
        self._head = TelemetryWindow(
            boot="bench",
            seq=0,
            start=_now(),
            end=_now(),
            seconds=60.0,
            digest=digest,
            baseline=baseline.digest,
            requests=Requests(ok=SAMPLES),
            latency=Latency(counts=(0, 0, 0, SAMPLES, *(0,) * 12), sum_s=1.0),
            observed=SAMPLES,
        )
        self._features = [self._one(baseline) for _ in range(20)]
        self._seq = itertools.count(1)

    def _one(self, baseline: Baseline) -> tuple[Any, ...]:
        made = []
        for feature in baseline.features:
            seen = sketch.empty(feature)
            seen.fold(RNG.normal(size=SAMPLES))
            made.append(record.to_record(seen))
        return tuple(made)

    def packed(self) -> bytes:
        """The next window."""
        seq = next(self._seq)
        features = self._features[seq % len(self._features)]
        return telemetry.pack(msgspec.structs.replace(self._head, seq=seq, features=features))


def _now() -> datetime:
    return datetime.now(UTC)


def register(server: Server) -> tuple[str, bytes]:
    """A model with a baseline of ten numbers: its name, and the baseline's file."""
    mlflow.set_tracking_uri(server.address)
    samples = RNG.normal(size=(5_000, FEATURES)).astype(np.float32)
    network = parts.network(1, 8)
    edgeflow_mlflow.log_model(widened(network), "net", samples={"x": samples}, registered_model_name="net")
    folder = Path(mlflow.artifacts.download_artifacts("models:/net/1"))
    return "models:/net/1", (folder / "extra_files" / "baseline.json").read_bytes()


def widened(network: Any) -> Any:
    """The network of the other benchmarks with ten inputs."""
    from onnx import helper, numpy_helper

    weights = RNG.standard_normal((FEATURES, 8)).astype(np.float32)
    network.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "a"))
    network.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, ["n", FEATURES]))
    return network


class Calls:
    """Times of calls that threads make until they are stopped."""

    def __init__(self, call: Callable[[], int]) -> None:
        self._call = call
        self.times: list[float] = []
        self.count = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            began = time.perf_counter()
            done = self._call()
            self.times.append(time.perf_counter() - began)
            self.count += done


@contextlib.contextmanager
def running(calls: Sequence[Calls]) -> Iterator[None]:
    """All of them in threads of their own."""
    threads = [threading.Thread(target=item.run) for item in calls]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for item in calls:
            item.over.set()
        for thread in threads:
            thread.join()


def mlflow_calls(server: Server, run_id: str) -> Callable[[], int]:
    """Log a metric and read the run, as a training script does."""
    session = requests.Session()
    step = itertools.count()

    def call() -> int:
        body = {"run_id": run_id, "key": "loss", "value": 1.0, "timestamp": 1, "step": next(step)}
        session.post(f"{server.address}/api/2.0/mlflow/runs/log-metric", json=body).raise_for_status()
        session.get(f"{server.address}/api/2.0/mlflow/runs/get?run_id={run_id}").raise_for_status()
        time.sleep(0.02)
        return 1

    return call


def posting(server: Server, credential: str, bodies: Iterator[bytes]) -> Callable[[], int]:
    """Post the next batch of a device."""
    session = requests.Session()
    headers = {**_HEADERS, "Authorization": f"Bearer {credential}"}

    def call() -> int:
        body = next(bodies, None)
        if body is None:
            raise SystemExit("all windows are stored before the time is over: raise MOST")
        answer = session.post(f"{server.api}/device/telemetry", data=body, headers=headers)
        answer.raise_for_status()
        return sum(len(item["seqs"]) for item in answer.json()["stored"])

    return call


def measure(folder: Path, seconds: float, devices: int, words: tuple[str, ...]) -> None:
    """Ingest over HTTP, and MLflow's calls with and without it."""
    server = Server(folder, kind="mlflow", words=words).start(timeout_s=120)
    try:
        uri, content = register(server)
        names = [f"robot-{number}" for number in range(devices)]
        credentials = [enrol(server, name) for name in names]
        server.client.create_deployment(
            records.DeploymentCreate(name="net", model_uri=uri, where=records.Place(targets=names))
        )
        digest = server.client.deployment("net").deployment.rollout.model.digest
        baseline = baseline_file.parse(content)
        batches = [bodies(Source(digest, baseline), int(seconds * MOST / BATCH / devices)) for _ in names]
        with mlflow.start_run() as run:
            run_id = run.info.run_id
        alone = [Calls(mlflow_calls(server, run_id)) for _ in range(2)]
        with running(alone):
            time.sleep(seconds)
        beside = [Calls(mlflow_calls(server, run_id)) for _ in range(2)]
        posts = [
            Calls(posting(server, credential, iter(made)))
            for credential, made in zip(credentials, batches, strict=True)
        ]
        began = time.perf_counter()
        with running([*beside, *posts]):
            time.sleep(seconds)
        elapsed = time.perf_counter() - began
        stored = sum(item.count for item in posts)
        before, after = p99(alone), p99(beside)
        print(f"{stored / elapsed:.0f} windows/s stored, {len(batches[0][0]) / BATCH / 1e3:.1f} kB each")
        print(
            f"MLflow p99 {before * 1e3:.0f} ms alone, {after * 1e3:.0f} ms beside: {after / before:.2f} times"
        )
    finally:
        server.stop()


def enrol(server: Server, name: str) -> str:
    """A credential for a device."""
    token = server.client.create_token(records.TokenCreate(target=name)).token
    body = {"token": token, "target": name, "idempotency_key": f"bench-{name}"}
    return str(request("POST", f"{server.api}/enroll", body).json["credential"])


def bodies(source: Source, count: int) -> list[bytes]:
    """Bodies of requests, each with a batch."""
    return [
        msgspec.json.encode({"windows": [base64.b64encode(source.packed()).decode() for _ in range(BATCH)]})
        for _ in range(count)
    ]


def p99(calls: Sequence[Calls]) -> float:
    """Over all of them, without the pause in between."""
    times = sorted(item - 0.02 for call in calls for item in call.times)
    return statistics.quantiles(times, n=100)[98]


def judge(folder: Path, count: int, devices: int) -> None:
    """Judge stored windows in this process, as the hub does."""

    flags = {"server.data_dir": str(folder / "d"), "server.database_url": f"sqlite:///{folder}/e.db"}
    state = opening.open_state(opening.resolve(config.load(environment={}, flags=flags), None))
    features = [f"f{number}" for number in range(FEATURES)]
    made = fleet(state, folder, *(f"robot-{number}" for number in range(devices)), features=features)
    seen = [values(SAMPLES, 0, features) for _ in range(20)]
    began = time.perf_counter()
    used = time.process_time()
    for device in made:
        for _ in range(0, count // devices, BATCH):
            batch = [device.sent(seen[k % 20]) for k in range(min(BATCH, count // devices))]
            ingest.take(state, device.name, batch)
    print(f"{devices} devices: {count} windows made and stored in {time.perf_counter() - began:.1f} s")
    began, used, judged = time.perf_counter(), time.process_time(), 0
    while found := drift.evaluate(state):
        judged += found
    elapsed, used = time.perf_counter() - began, time.process_time() - used
    each = elapsed / judged * 1e3
    print(f"judged {judged} in {elapsed:.2f} s: {each:.2f} s for 1,000 ({used:.1f} s of a core)")
    state.database.dispose()


def main() -> None:
    """Both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--windows", type=int, default=10_000, help="to judge; 0: none")
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    for devices in (40, 1000) if given.windows else ():
        with tempfile.TemporaryDirectory() as name:
            judge(Path(name), given.windows, devices)
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), given.seconds, given.devices, ("--workers", str(given.workers)))


if __name__ == "__main__":
    main()
