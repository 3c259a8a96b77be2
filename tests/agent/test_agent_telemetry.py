"""What a device tells of its requests: windows, their way to the server, drift on the device itself."""

from __future__ import annotations

import math
import sqlite3
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeflow_agent import errors
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.drift import baseline_file, build, record, sketch
from edgeflow_agent.drift.baseline import Source
from edgeflow_agent.drift.features import Described
from edgeflow_agent.drift.watch import Watch
from edgeflow_agent.inference import slot
from edgeflow_agent.inference.metrics import Metrics
from edgeflow_agent.inference.observing import Observer
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.runtime.collecting import Collector
from edgeflow_agent.runtime.forwarder import Forwarder
from edgeflow_agent.runtime.outlet import Outlet
from edgeflow_agent.runtime.window_keeper import WindowKeeper, fitting
from edgeflow_agent.store import captures
from edgeflow_agent.store.captures import CaptureStore
from edgeflow_agent.store.learned import LearnedBaselines
from edgeflow_agent.store.spool import of_reports, of_windows
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire import documents, telemetry
from edgeflow_agent.wire.documents import ModelRef, Monitor
from edgeflow_agent.wire.sketches import NumericRecord, Sparse
from edgeflow_agent.wire.telemetry import TelemetryWindow
from edgeflow_agent.wire.topics import Kind
from tests.agent.conftest import linear, request, wait_for

Run = Callable[..., Agent]
FAST = {"telemetry_window_s": 0.5}
_RNG = np.random.default_rng(5)


def baseline(rows: int = 3000) -> bytes:
    samples = _RNG.normal(size=(rows, 4))
    inputs = [
        Described(name, samples[:, index], Source(input="x", column=index))
        for index, name in enumerate("abcd")
    ]
    outputs = [Described("y.value", samples.sum(axis=1), Source(output="y", statistic="value"))]
    return build.encode(build.build(inputs, outputs))


def ask(agent: Agent, rows: Any) -> None:
    status, answer = request(f"{agent.url}/infer", np.asarray(rows).tolist())
    assert status == 200, answer


def deploy(server: FakeServer, generation: int, files: dict[str, bytes]) -> None:
    server.deploy(generation, files)
    server.wait_report("deployed", execution=f"e{generation}")


def requests_told(server: FakeServer, digest: str = "") -> int:
    return sum(item.requests.ok for item in list(server.windows) if not digest or item.digest == digest)


def test_every_request_is_in_one_window(server: FakeServer, run: Run) -> None:
    agent = run(**FAST)
    deploy(server, 1, {"model.onnx": linear(1), "baseline.json": baseline()})
    for _ in range(30):
        ask(agent, _RNG.normal(size=(2, 4)))
    assert request(f"{agent.url}/infer", ["nonsense"])[0] == 400
    wait_for(lambda: requests_told(server) == 30)
    windows = list(server.windows)
    assert sum(item.requests.bad_input for item in windows) == 1
    assert sum(sum(item.latency.counts) for item in windows) == 31
    assert sum(item.observed + item.unobserved for item in windows) == 30
    assert {item.digest for item in windows if item.requests.ok} == {agent.slot.current.digest}  # type: ignore[union-attr]
    reference = baseline_file.parse(agent.slot.current.folder.joinpath("baseline.json").read_bytes())  # type: ignore[union-attr]
    total = {feature.name: sketch.empty(feature) for feature in reference.features}
    for window in windows:
        assert window.baseline == reference.digest or not window.features
        for item in window.features:
            total[item.name].merge(record.from_record(total[item.name].feature, item))
    assert {counted.n for counted in total.values()} == {2 * sum(item.observed for item in windows)}
    assert {item.seq for item in windows} == set(range(1, len(windows) + 1))
    resources = windows[-1].resources
    assert resources.rss_bytes
    assert resources.disk_free_bytes
    assert resources.disk_free_ratio is not None
    assert 0 < resources.disk_free_ratio <= 1


def test_a_swap_ends_the_window_of_the_model_before(server: FakeServer, run: Run) -> None:
    agent = run(telemetry_window_s=3600.0)
    deploy(server, 1, {"model.onnx": linear(1), "baseline.json": baseline()})
    first = agent.slot.current.digest  # type: ignore[union-attr]
    for _ in range(5):
        ask(agent, _RNG.normal(size=(1, 4)))
    deploy(server, 2, {"model.onnx": linear(2)})
    for _ in range(7):
        ask(agent, _RNG.normal(size=(1, 4)))
    second = agent.slot.current.digest  # type: ignore[union-attr]
    agent.stop()  # which ends a window as well
    agent = run(**FAST)
    wait_for(lambda: requests_told(server, second) == 7)
    assert requests_told(server, first) == 5
    assert [item.swaps for item in server.windows if item.digest == first] == [1]


def test_windows_wait_for_a_server_that_stores_nothing(server: FakeServer, run: Run) -> None:
    agent = run(**FAST)
    deploy(server, 1, {"model.onnx": linear(1)})
    server.stores = False
    for _ in range(5):
        ask(agent, [[1, 2, 3, 4]])
    wait_for(lambda: agent._windows.pending_count >= 3)
    metrics = _metrics(agent)
    assert metrics["edgeflow_telemetry_spool_pending"] >= 3
    server.windows.clear()
    server.stores = True
    wait_for(lambda: agent._windows.pending_count == 0)
    assert requests_told(server) == 5


def test_a_model_without_a_baseline_learns_one(server: FakeServer, run: Run) -> None:
    agent = run(telemetry_learn=200, **FAST)
    deploy(server, 1, {"model.onnx": linear(1)})
    for _ in range(10):
        ask(agent, _RNG.normal(size=(25, 4)))
    wait_for(lambda: any(item.is_learned for item in server.windows))
    digest = agent.slot.current.digest  # type: ignore[union-attr]
    learned = baseline_file.parse(zlib.decompress(wait_for(lambda: server.baselines.get(digest))))
    assert [feature.name for feature in learned.features] == ["x.0", "x.1", "x.2", "x.3", "y.value"]
    assert all(200 <= feature.n <= 250 for feature in learned.features)
    assert {item.baseline for item in server.windows if item.is_learned} == {learned.digest}
    agent.stop()
    again = run(telemetry_learn=200, **FAST)
    page = wait_for(lambda: (drift := request(f"{again.url}/model")[1]["drift"])["baseline"] and drift)
    assert page["baseline"] == learned.digest
    assert page["is_learned"]


def test_drift_is_told_on_the_device_without_a_server(server: FakeServer, run: Run) -> None:
    agent = run(**FAST)
    deploy(server, 1, {"model.onnx": linear(1), "baseline.json": baseline()})
    server.fail = 503

    def drift() -> dict[str, Any]:
        page: dict[str, Any] = request(f"{agent.url}/model")[1]["drift"]
        return page

    def shifted(by: float) -> bool:
        rows = _RNG.normal(size=(600, 4))
        rows[:, 2] += by
        ask(agent, rows)
        return bool(drift()["alarm"])

    wait_for(lambda: shifted(0.0) or drift()["features"])
    assert not drift()["alarm"]
    wait_for(lambda: shifted(1.0), 30)
    page = drift()
    assert {item["feature"] for item in page["features"] if item["alarm"]} <= {"c", "y.value"}
    assert page["features"][0]["why"]
    assert _metrics(agent)['edgeflow_drift_alarm{feature="c"}'] == 1
    assert _metrics(agent)['edgeflow_drift_alarm{feature="a"}'] == 0
    wait_for(lambda: not shifted(0.0), 30)


def _metrics(agent: Agent) -> dict[str, float]:
    import urllib.request

    with urllib.request.urlopen(f"{agent.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name[:1] != "#"
    }


def window(**changes: Any) -> TelemetryWindow:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return TelemetryWindow(**({"boot": "", "seq": 0, "start": now, "end": now} | changes))


@pytest.mark.parametrize("random", [False, True])  # equal ones pack to almost nothing
def test_a_window_that_is_too_large_goes_without_some_features(random: bool) -> None:
    def counts(number: int) -> tuple[int, ...]:
        seed = number if random else 0
        return tuple(np.random.default_rng(seed).integers(1, 2**40, size=1000).tolist())

    features = tuple(
        NumericRecord(name=f"f{number}", fine=Sparse(gap=(1,) * 1000, count=counts(number)))
        for number in range(512)
    )
    found = fitting(window(features=features, left_out=3))
    assert telemetry.unpack(telemetry.pack(found)) == found
    assert 0 < len(found.features) < 512
    assert found.left_out == 3 + 512 - len(found.features)


def test_what_is_dropped_for_lack_of_room_is_counted(tmp_path: Path) -> None:
    spool = of_windows(tmp_path / "t.db", max_bytes=3000)
    woken: list[int] = []
    keep = WindowKeeper(spool, lambda: woken.append(1))
    for number in range(100):
        keep(window(model=f"model {number}", digest=f"{number:064d}"))
    kept = spool.pending(limit=1000)
    assert len(woken) == 100
    assert 0 < len(kept) < 100
    assert spool.dropped == 100 - len(kept)
    assert [item.seq for item in kept] == list(range(101 - len(kept), 101))
    # A window tells what was lost before it came.
    assert kept[-1].dropped == 99 - kept[-1].pending
    spool.close()


def test_a_disk_that_takes_no_window_does_not_stop_anything(tmp_path: Path) -> None:
    spool = of_windows(tmp_path / "t.db", max_bytes=10**6)
    spool._connection.execute("PRAGMA query_only=1")
    keep = WindowKeeper(spool, lambda: None)
    keep(window(model="a"))
    spool._connection.execute("PRAGMA query_only=0")
    keep(window(model="b"))
    assert [item.model for item in spool.pending()] == ["a", "b"]
    with pytest.raises(sqlite3.ProgrammingError):
        spool.close()
        spool.pending()


@pytest.mark.parametrize("every", [1, 7, 100])
def test_one_request_in_so_many_is_taken_by_chance(every: int, tmp_path: Path) -> None:
    serving = _serving(tmp_path)
    observer = Observer()
    observer.every, observer.engine = every, serving.engine
    taken = 0
    for _ in range(200):
        for _ in range(100):
            observer.take(serving, {"x": np.zeros((1, 4), np.float32)}, [np.zeros(1)])
        taken += len(observer.collect(1000))
    assert observer.seen == 20_000
    # Gaps are even between 0 and 2 (every - 1): their deviation is below their mean.
    assert abs(taken - 20_000 / every) < 5 * math.sqrt(20_000 / every) + 1


def test_what_nobody_collects_is_bounded(tmp_path: Path) -> None:
    serving = _serving(tmp_path)
    observer = Observer(most_bytes=10_000)
    observer.every, observer.engine = 1, serving.engine
    for _ in range(50):
        observer.take(serving, {"x": np.zeros(100)}, [])
    assert len(observer.collect(100)) == 9
    observer.take(serving, {"x": np.zeros(100)}, [])
    assert len(observer.collect(100)) == 1
    for _ in range(2):
        observer.take(serving, {"x": np.zeros(5000)}, [])
    assert len(observer.collect(100)) == 1, "a large one is held alone"
    observer.take(serving, {"x": np.zeros(3 * 2**20)}, [])
    assert observer.collect(100) == [], "but not of any size"
    observer.every = 0
    observer.take(serving, {"x": np.zeros(100)}, [])
    assert observer.collect(100) == []


@pytest.mark.parametrize(
    "value",
    [
        np.array([["a" * 5000]], dtype=object),
        [{"cat": 0.5, "dog": 0.5}] * 20,
        np.array(["word"] * 100, dtype=object),
        np.zeros(700),
    ],
    ids=["text", "maps", "words", "numbers"],
)
def test_whatever_a_model_gives_counts_about_as_much_as_it_is(value: Any, tmp_path: Path) -> None:
    serving = _serving(tmp_path)
    observer = Observer(most_bytes=60_000)
    observer.every, observer.engine, observer.capture_rate = 1, serving.engine, 1.0
    for _ in range(50):
        observer.take(serving, {}, [value])
    assert 5 <= len(observer.collect(100)) <= 12
    assert 5 <= len(list(observer.captured())) <= 12
    observer.take(serving, {}, [value])
    assert len(list(observer.captured())) == 1


def test_a_device_that_was_busy_looks_again_as_soon_as_it_is_not(tmp_path: Path) -> None:
    serving = _serving(tmp_path)
    observer = Observer()
    observer.every, observer.engine, observer._pause = 10_000, serving.engine, 15_000
    observer.take(serving, {}, [])
    observer.every = 1
    for _ in range(3):
        observer.take(serving, {}, [])
    assert len(observer.collect(10)) >= 2


def test_requests_of_the_model_before_are_not_held(tmp_path: Path) -> None:
    serving = _serving(tmp_path)
    (other := tmp_path / "other").mkdir()
    other.joinpath("baseline.json").write_bytes(baseline())
    place, observer = slot.Slot(), Observer()
    collector = Collector(AgentConfig(state_dir=tmp_path), place, Metrics(), observer, lambda _window: None)
    place.on_change = collector._changed
    place.swap(serving)
    observer.every = 1
    observer.take(serving, {}, [])
    assert observer.held == 1
    place.swap(_serving(other))
    assert observer.held == 0
    observer.every = 1
    observer.take(serving, {}, [])  # it was in work when the other took over
    observer.take(place.current, {}, [])  # type: ignore[arg-type]
    assert observer.held == 1


def test_no_request_is_lost_between_two_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = _serving(tmp_path)
    tmp_path.joinpath("baseline.json").write_bytes(baseline())
    place, observer, metrics = slot.Slot(), Observer(), Metrics()
    told: list[TelemetryWindow] = []
    collector = Collector(AgentConfig(state_dir=tmp_path), place, metrics, observer, told.append)
    place.swap(serving)

    def one() -> None:
        observer.take(serving, {"x": np.zeros((1, 4), np.float32)}, [np.zeros((1, 1), np.float32)])
        metrics.answered("ok", 0.001)

    close = Watch.close

    def slow(watch: Watch, seconds: float) -> Any:
        one()  # as it comes while verdicts are found
        return close(watch, seconds)

    monkeypatch.setattr(Watch, "close", slow)
    collector._turn()
    for _ in range(3):
        one()
        collector._window._begun -= 3600  # type: ignore[union-attr]
        collector._turn()
    monkeypatch.undo()
    collector._turn()
    collector._end()
    assert sum(item.requests.ok for item in told) == 6
    assert sum(item.observed + item.unobserved for item in told) == 6
    assert sum(item.observed for item in told) == 6


@pytest.mark.parametrize("broken", ["fold", "close"])
def test_a_window_ends_whatever_its_features_do(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = _serving(tmp_path)
    tmp_path.joinpath("baseline.json").write_bytes(baseline())
    place, observer, metrics = slot.Slot(), Observer(), Metrics()
    told: list[TelemetryWindow] = []
    collector = Collector(AgentConfig(state_dir=tmp_path), place, metrics, observer, told.append)
    place.swap(serving)
    collector._turn()

    def fail(*_args: Any) -> None:
        raise ValueError("a strange model")

    monkeypatch.setattr(Watch, broken, fail)
    for _ in range(3):
        observer.take(serving, {"x": np.zeros((1, 4), np.float32)}, [np.zeros((1, 1), np.float32)])
        metrics.answered("ok", 0.001)
        collector._window._begun -= 3600  # type: ignore[union-attr]
        collector._turn()
    assert [item.requests.ok for item in told] == [1, 1, 1]
    assert {item.observed + item.unobserved for item in told} == {1}


class _Link:
    """A broker that takes everything, and nobody behind it."""

    connected, session, url = True, 1, ""

    def __init__(self) -> None:
        self.windows = 0

    def room(self) -> int:
        return 100

    def publish(self, kind: Kind, _payload: bytes, **_how: Any) -> bool:
        self.windows += kind is Kind.TELEMETRY
        return True


class _Api:
    """A server over HTTP that knows no telemetry."""

    credential = ""

    def __init__(self) -> None:
        self.baselines: list[Any] = []

    def telemetry(self, _request: Any) -> None:
        raise errors.TransferError("no such route", status=404)

    def baseline(self, upload: Any) -> None:
        self.baselines.append(upload)


def test_over_mqtt_windows_wait_in_peace_and_learned_baselines_come_by_http(tmp_path: Path) -> None:
    windows = of_windows(tmp_path / "t.db", max_bytes=10**7)
    reports = of_reports(tmp_path / "r.db", max_bytes=10**6)
    learned = LearnedBaselines(tmp_path / "learned")
    learned.keep("d" * 64, baseline())
    api, link = _Api(), _Link()
    forwarder = Forwarder(
        reports,
        windows,
        learned,
        lambda: api,  # type: ignore[arg-type, return-value]
        lambda kind: documents.Presence(kind=kind, boot="b", at=datetime.now(UTC)),
        resend_s=0.1,
    )
    forwarder.link = link  # type: ignore[assignment]
    for _ in range(3):
        windows.add(window())
    forwarder._turn()
    assert [item.digest for item in api.baselines] == ["d" * 64]
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        time.sleep(forwarder._turn())
    assert link.windows > 20, "what HTTP does not take goes over MQTT again and again"
    windows.close()
    reports.close()


def test_only_what_is_due_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = of_windows(tmp_path / "t.db", max_bytes=10**7)
    for _ in range(50):
        spool.add(window())
    outlet = Outlet(spool, resend_s=60)
    read: list[int] = []
    decode = spool._decode
    monkeypatch.setattr(spool, "_decode", lambda payload: read.append(1) or decode(payload))
    for _ in range(4):
        outlet.mark(outlet.due(10))
    assert len(read) == 40
    assert [item.seq for item in outlet.due(100)] == list(range(41, 51))
    spool.close()


def test_a_folder_that_cannot_be_written_keeps_no_model_unwatched(tmp_path: Path) -> None:
    tmp_path.joinpath("learned").write_bytes(b"a file in the way")
    content = baseline()
    kept = LearnedBaselines(tmp_path / "learned").keep("d" * 64, content)
    assert kept.digest == baseline_file.parse(content).digest


def test_many_small_captures_stay_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "_MOST", 10)
    folder = tmp_path / "captures"
    for store in (CaptureStore(folder, max_bytes=10**6), CaptureStore(folder, max_bytes=10**6)):
        for number in range(15):
            store.keep(model="m", version="1", digest="d", inputs={"x": number}, outputs={})
    kept = store.listed(limit=100)
    assert len(kept) == 10
    assert msgspec.json.decode(store.content(kept[0].id))["inputs"] == {"x": 14}

    def full(*_args: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        store.keep(model="m", version="1", digest="d", inputs={}, outputs={})
    assert not list(folder.glob(".*")), "nothing half is left on a full disk"


def _serving(folder: Path) -> slot.Serving:
    (folder / "m.onnx").write_bytes(linear(1))
    return slot.load(
        folder / "m.onnx", model=ModelRef(name="m", version="1"), declared=slot.Interface(), threads=1
    )


def test_a_damaged_window_is_refused_with_a_reason() -> None:
    packed = telemetry.pack(window(model="m"))
    assert telemetry.unpack(packed) == window(model="m")
    for wrong in (b"", b"{}", packed[:-3], packed + b"x", msgspec.json.encode(window())):
        with pytest.raises(Exception, match=r"window|TelemetryWindow"):
            telemetry.unpack(wrong)


def test_requests_that_a_deployment_asks_to_keep_can_be_fetched(server: FakeServer, run: Run) -> None:
    agent = run(telemetry_window_s=0.2, telemetry_capture_max_mb=0.002)
    server.deploy(1, {"model.onnx": linear(1)}, monitor=Monitor(capture_rate=1.0))
    server.wait_report("deployed", execution="e1")
    for number in range(40):
        ask(agent, [[number, 0, 0, 0]])
        wait_for(lambda: not agent._serving.observer._captured)

    def question(method: str, body: Any = None) -> Any:
        answers: list[bytes] = []
        sent = documents.RpcRequest(id="q", method=method, body=msgspec.Raw(msgspec.json.encode(body)))
        agent._rpc.answer(documents.encode(sent), answers.append)
        answer = documents.decode(documents.RpcResponse, wait_for(lambda: answers)[0])
        return answer.status, msgspec.json.decode(answer.body)

    def newest() -> Any:
        status, kept = question("captures")
        assert status == 200
        assert 2 < len(kept) < 40, "the oldest are gone"
        assert sum(item["size"] for item in kept) <= 0.002 * 2**20
        status, part = question("capture", {"id": kept[0]["id"]})
        assert (status, part["size"]) == (200, kept[0]["size"])
        return msgspec.json.decode(msgspec.json.decode(msgspec.json.encode(part["piece"]), type=bytes))

    wait_for(lambda: newest()["inputs"] == {"x": [[39.0, 0.0, 0.0, 0.0]]})
    whole = newest()
    assert whole["outputs"] == {"y": [[39.0]]}
    # What was captured can be asked again as it is.
    assert request(f"{agent.url}/infer", {"inputs": whole["inputs"]})[1]["outputs"] == whole["outputs"]
    assert question("capture", {"id": "../../identity"})[0] == 404
    assert question("capture", {"offset": -1})[0] == 400
    deploy(server, 2, {"model.onnx": linear(2)})
    before = question("captures")[1]
    ask(agent, [[1, 2, 3, 4]])
    wait_for(lambda: sum(item.requests.ok for item in list(server.windows)) == 41)
    assert question("captures")[1] == before, "this deployment asks for none"
