"""A rollout in four waves to many simulated devices, some of them bad: when it halts, how it goes back.

    python benchmarks/bench_rollout.py [--devices 500] [--bad 5]

A real `edgeflow server` with its broker, and `edgeflow simulate` with the real protocol, on one machine. With
a limit of failures below the share of bad devices the rollout halts by itself and everybody goes back.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

import fleet as parts
import mlflow
import psutil

from edgeflow_mlflow.api import records
from tests.harness import BIN, Process, Server

NAME = "net"
_PATIENCE_S = 1800.0
_LOOK_S = 2.0
T = TypeVar("T")


class Cost:
    """Processor time and largest memory of the server and its hub, from start to end."""

    def __init__(self, server: Server) -> None:
        assert server.process.popen is not None
        self._root = psutil.Process(server.process.popen.pid)
        self._began = (time.monotonic(), self._processor_s())
        self.largest_mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _all(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _processor_s(self) -> float:
        found = 0.0
        for process in self._all():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                found += times.user + times.system
        return found

    def _look(self) -> None:
        while not self._over.wait(0.5):
            with contextlib.suppress(psutil.Error):
                now = sum(process.memory_info().rss for process in self._all()) / 1e6
                self.largest_mb = max(self.largest_mb, now)

    def cores(self) -> float:
        """Mean number of cores in use since the start."""
        self._over.set()
        moment, used = self._began
        return (self._processor_s() - used) / (time.monotonic() - moment)


@contextlib.contextmanager
def simulated(server: Server, folder: Path, devices: int, token: str, *, bad: float) -> Iterator[None]:
    """The fleet, connected; the same one each time."""
    words = [str(BIN / "edgeflow"), "simulate", "--server", server.address, "--devices", str(devices)]
    words += ["--state-dir", str(folder / "fleet"), "--install-time", "0.2..1", "--bad", f"{bad}%", "--json"]
    words += ["--labels", "bench=yes", *(["--token", token] if token else [])]
    process = Process(words, folder, f"simulate-{bad:g}")
    process.start()
    try:
        wait(
            lambda: sum(item.connected for item in server.client.targets()) >= devices,
            f"{devices} devices: {process.text()[-2000:]}",
        )
        yield
    finally:
        process.stop(60)


def wait(condition: Callable[[], T], what: str) -> T:
    """The first true value. Asked once in a while only: the answers are large, and the server is what is
    measured."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(_LOOK_S)
    return value


def follow(server: Server) -> records.RolloutProgress:
    """The newest rollout, when it has stopped."""
    found = wait(
        lambda: found if (found := server.client.rollout(NAME)).state != "running" else None,
        "the rollout to stop",
    )
    assert found is not None
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which such a share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def waves(found: records.RolloutProgress) -> None:
    """A line for each wave."""
    for wave in found.waves:
        if wave.started_at is None:
            print(f"  wave {wave.number}: {wave.targets} devices, not begun")
            continue
        end: datetime = wave.finished_at or datetime.now(wave.started_at.tzinfo)
        seconds = (end - wave.started_at).total_seconds()
        told = f"{wave.targets} devices, {wave.state} after {seconds:.1f} s"
        print(f"  wave {wave.number}: {told} {wave.counts}")


def reached(server: Server, found: records.RolloutProgress) -> None:
    """From the decision to the first word of the device."""
    delays: list[float] = []
    for member in server.client.rollout_targets(NAME, found.number):
        if member.execution is None or member.assigned_at is None:
            continue
        detail = server.client.execution(member.execution.id)
        delays += [
            (report.received_at - member.assigned_at).total_seconds()
            for report in detail.reports
            if report.state == "accepted"
        ]
    if delays:
        middle, slow = statistics.median(delays), quantile(delays, 0.99)
        print(f"  decision to device: p50 {middle:.2f} s, p99 {slow:.2f} s, n={len(delays)}")


def main() -> int:
    """Three rollouts: one that succeeds, one that halts and goes back, and their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--bad", type=float, default=5.0, help="percent")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        server = Server(folder / "server").start()
        mlflow.set_tracking_uri(server.address)
        try:
            for number in (1, 2):
                mlflow.onnx.log_model(
                    parts.network(number, 64),
                    name=NAME,
                    registered_model_name=NAME,
                    save_as_external_data=False,
                )
            token = server.client.create_token(records.TokenCreate(uses=given.devices)).token
            good = play(server, folder, given.devices, token, 0.0, version=1, limit=0.2)
            bad = play(server, folder, given.devices, "", given.bad, version=2, limit=given.bad / 200)
        finally:
            server.stop()
    print(f"halts by itself and goes back: {'kept' if good and bad else 'MISSED'}")
    return 0 if good and bad else 1


def play(
    server: Server, folder: Path, devices: int, token: str, bad: float, *, version: int, limit: float
) -> bool:
    """One version to the whole fleet in four waves."""
    rollout = records.RolloutSettings(
        waves=["1", "10%", "50%", "100%"], max_failure_rate=limit, minimum_executed=10, on_failure="rollback"
    )
    with simulated(server, folder, devices, token, bad=bad):
        cost = Cost(server)
        uri = f"models:/{NAME}/{version}"
        if version == 1:
            where = records.Place(selector="bench=yes")
            body = records.DeploymentCreate(name=NAME, model_uri=uri, where=where, rollout=rollout)
            server.client.create_deployment(body)
        else:
            body_of_change = records.DeploymentChange(model_uri=uri, rollout=rollout)
            server.client.change_deployment(NAME, body_of_change)
        last = follow(server)
        shown = server.client.rollout(NAME, version)
        print(f"version {version}, {bad:g} % bad, limit {limit:.1%}: {shown.state}: {shown.why}")
        waves(shown)
        reached(server, shown)
        print(f"  server: {cost.cores():.2f} cores, at most {cost.largest_mb:.0f} MB")
        if not bad:
            return last.state == "succeeded" and last.number == version
        print(f"  back: rollout {last.number} {last.state}")
        waves(last)
        wait(
            lambda: {item.actual.version for item in server.client.targets()} == {"1"},
            "every device to say that it serves version 1 again",
        )
        return shown.state == "failed" and last.state == "succeeded"


if __name__ == "__main__":
    sys.exit(main())
