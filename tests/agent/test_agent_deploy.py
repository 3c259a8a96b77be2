"""One agent and a server: documents good and bad, over HTTP polls. Nothing bad ever stops the serving."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeflow_agent import errors, steps
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire import documents, signing
from edgeflow_agent.wire.documents import (
    Action,
    Column,
    DesiredDeployment,
    Interface,
    Runtime,
    TensorSpec,
    Trial,
)
from tests.agent.conftest import Run, endless, failing, hungry, linear, request, served, wait_for


def settled(server: FakeServer, generation: int) -> None:
    wait_for(lambda: any(item.generation >= generation for item in list(server.presence)), what="presence")


def test_install_and_update(server: FakeServer, serving: Agent) -> None:
    server.deploy(2, {"model.onnx": linear(2), "extra.bin": b"x" * 1000})
    report = server.wait_report("deployed", execution="e2")
    assert served(serving) == 8.0
    assert server.states("e2") == ["accepted", "downloading", "verifying", "loading", "deployed"]
    _, model = request(f"{serving.url}/model")
    assert (model["execution"], model["generation"], model["digest"]) == ("e2", 2, report.digest)
    settled(server, 2)
    last = server.presence[-1]
    assert (last.digest, last.previous_digest, last.serving) == (report.digest, model["previous"], True)
    assert any(headers.get("x-edgeflow-generation") == "2" for _, _, headers in server.requests) or wait_for(
        lambda: any(h.get("x-edgeflow-generation") == "2" for _, _, h in list(server.requests))
    )


STEPS = [
    {"step": "columns", "names": ["a", "b", "c", "d"], "defaults": {"d": 5}},
    {"step": "feed", "input": "x"},
    {"step": "threshold", "output": "y", "name": "size", "threshold": 20, "labels": ["small", "large"]},
]


def test_steps_come_with_the_model_and_go_with_it(server: FakeServer, serving: Agent) -> None:
    server.deploy(2, {"model.onnx": linear(2), "steps.json": steps.load(STEPS).encode()})
    server.wait_report("deployed", execution="e2")
    _, answer = request(f"{serving.url}/infer", {"a": 1, "b": 2, "c": 3})
    assert answer["result"]["size"] == {"label": "large", "score": 22.0}
    status, answer = request(f"{serving.url}/infer", {"a": 1, "b": 2})
    assert status == 400
    assert answer["error"]["message"].startswith("before[0] columns: field 'c' is missing")
    server.deploy(3, {"model.onnx": linear(3)})
    server.wait_report("deployed", execution="e3")
    assert served(serving) == 12.0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "the document is not JSON"),
        (b'{"format": 9}', "format 9"),
        (b'{"after": [{"step": "labels", "output": "z"}]}', r"after[0] labels: there is no output 'z'"),
        (steps.load([{**STEPS[0], "names": ["d"]}, STEPS[1]]).encode(), "gives 1 along axis 1"),
    ],
)
def test_steps_that_do_not_fit_end_the_deployment(
    server: FakeServer, serving: Agent, content: bytes, words: str
) -> None:
    server.deploy(2, {"model.onnx": linear(2), "steps.json": content})
    report = server.wait_report("failed", execution="e2")
    assert report.reason == "steps"
    assert words in report.message
    assert served(serving) == 4.0


def test_the_same_files_are_adopted_without_a_download(server: FakeServer, serving: Agent) -> None:
    before = sum("/blobs/" in path for _, path, _ in server.requests)
    columns = tuple(Column(name=name) for name in "abcd")
    server.deploy(2, {"model.onnx": linear(1)}, version="renamed", interface=Interface(columns=columns))
    server.wait_report("deployed", execution="e2")
    assert server.states("e2") == ["accepted", "deployed"]
    assert sum("/blobs/" in path for _, path, _ in server.requests) == before
    assert request(f"{serving.url}/infer", dict.fromkeys("abcd", 1))[1]["model"]["version"] == "renamed"


def test_a_changed_runtime_loads_the_same_files_again(server: FakeServer, serving: Agent, run: Run) -> None:
    def threads(agent: Agent) -> int:
        current = agent.slot.current
        assert current is not None
        return int(current.engine._session.get_session_options().intra_op_num_threads)

    before = sum("/blobs/" in path for _, path, _ in server.requests)
    files = {"model.onnx": linear(1)}
    server.deploy(2, files, runtime=Runtime(threads=2))
    server.wait_report("deployed", execution="e2")
    assert "loading" in server.states("e2")
    assert (threads(serving), served(serving)) == (2, 4.0)
    server.deploy(3, files, runtime=Runtime(threads=2, max_concurrent=3))
    server.wait_report("deployed", execution="e3")
    assert server.states("e3") == ["accepted", "deployed"]
    serving.stop()
    agent = run()
    assert agent.slot.current is not None
    assert agent.slot.current.runtime == Runtime(threads=2, max_concurrent=3)
    server.deploy(4, files)
    server.wait_report("deployed", execution="e4")
    assert (threads(agent), served(agent)) == (1, 4.0)
    assert sum("/blobs/" in path for _, path, _ in server.requests) == before


def test_a_model_with_its_weights_in_another_file(server: FakeServer, serving: Agent, tmp_path: Path) -> None:
    model = onnx.load_from_string(linear(5))
    onnx.save_model(
        model, tmp_path / "ext.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    files = {name: (tmp_path / name).read_bytes() for name in ("ext.onnx", "weights.bin")}
    server.deploy(2, files)
    server.wait_report("deployed", execution="e2")
    assert served(serving) == 20.0
    server.deploy(3, {"ext.onnx": files["ext.onnx"]})
    assert server.wait_report("failed", execution="e3").reason == "model"
    assert served(serving) == 20.0


def test_a_first_model_that_fails_on_trial_leaves_none(server: FakeServer, run: Run) -> None:
    agent = run()
    server.deploy(1, {"model.onnx": failing()}, trial=Trial(duration_s=3600))
    server.wait_report("trial", execution="e1")
    for _ in range(10):
        assert request(f"{agent.url}/infer", [1, 1, 1, 1])[0] == 500
    server.wait_report("rolled_back", execution="e1")
    assert served(agent) is None
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")


def test_hold_remove_and_back(server: FakeServer, serving: Agent, run: Run) -> None:
    def offer(generation: int, action: Action) -> None:
        deployment = DesiredDeployment(id="d1", execution=f"e{generation}", name="iris", action=action)
        server.offer(server.sign(generation, [deployment]))
        server.wait_report("deployed", execution=f"e{generation}")

    offer(2, Action.HOLD)
    assert served(serving) == 4.0
    offer(3, Action.REMOVE)
    assert served(serving) is None
    serving.stop()
    agent = run()
    assert served(agent) is None
    server.deploy(4, {"model.onnx": linear(4)})
    server.wait_report("deployed", execution="e4")
    assert served(agent) == 16.0


def test_a_document_that_asks_for_nothing_changes_nothing(server: FakeServer, serving: Agent) -> None:
    server.offer(server.sign(2))
    settled(server, 2)
    assert served(serving) == 4.0


def test_restart_without_a_network_serves_at_once(server: FakeServer, serving: Agent, run: Run) -> None:
    serving.stop()
    server.stop()
    agent = run()
    assert served(agent) == 4.0
    server.restart()
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")


def test_reports_wait_until_they_are_stored(server: FakeServer, serving: Agent, run: Run) -> None:
    server.stores = False
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")
    serving.stop()
    server.forget()
    server.stores = True
    agent = run()
    server.wait_report("deployed", execution="e2")
    wait_for(lambda: agent._spool.pending_count == 0, what="an empty spool")


def flipped(data: bytes) -> bytes:
    """One bit of the payload changed."""
    value = json.loads(data)
    payload = bytearray(value["payload"].encode())
    payload[40] = ord("A") if payload[40] != ord("A") else ord("B")
    return json.dumps(value | {"payload": payload.decode()}).encode()


def past(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"issued_at": now - timedelta(days=8), "expires_at": now - timedelta(days=1)} | changes


BAD: dict[str, tuple[Callable[[FakeServer, DesiredDeployment], bytes], str]] = {
    "tampered": (lambda s, d: flipped(s.sign(2, [d])), "signature"),
    "unknown key": (lambda s, d: s.sign(2, [d], key=Ed25519PrivateKey.generate()), "signature"),
    "another device": (lambda s, d: s.sign(2, [d], target="robot-08"), "wrong_target"),
    "another server": (lambda s, d: s.sign(2, [d], fleet="other"), "wrong_fleet"),
    "expired": (lambda s, d: s.sign(2, [d], **past()), "expired"),
    "replayed": (lambda s, d: s.sign(0, [d]), "old_generation"),
    "not an envelope": (lambda s, d: b"<html>log in</html>", "envelope"),
    "too large": (lambda s, d: b"x" * 70_000, "too_large"),
    "a trust document": (lambda s, d: s.trust(), "envelope"),
    "not a document": (lambda s, d: signing.sign(signing.DESIRED, b"[]", s.key), "contract"),
    "two deployments": (lambda s, d: s.sign(2, [d, d]), "document"),
    "a path": (
        lambda s, d: s.sign(2, [s.install(2, {"../m.onnx": b"x"})]),
        "document",
    ),
    "an entry that is not there": (
        lambda s, d: s.sign(2, [s.install(2, {"m.onnx": b"x"}, entry="n.onnx")]),
        "document",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_document_is_refused_once_and_the_old_model_serves(
    server: FakeServer, serving: Agent, name: str
) -> None:
    make, reason = BAD[name]
    server.offer(make(server, server.install(2, {"model.onnx": linear(2)})))
    report = wait_for(
        lambda: next((r for r in list(server.reports) if r.state == "rejected"), None), what="the refusal"
    )
    assert report.message
    assert report.reason in (reason, "contract")
    polls = len(server.requests)
    wait_for(lambda: len(server.requests) > polls + 6)
    assert sum(item.state == "rejected" for item in server.reports) == 1
    assert served(serving) == 4.0
    # The way is not blocked for a good one.
    server.deploy(3, {"model.onnx": linear(3)})
    server.wait_report("deployed", execution="e3")


def test_an_expired_document_that_is_issued_anew_is_carried_out(server: FakeServer, serving: Agent) -> None:
    deployment = server.install(2, {"model.onnx": linear(2)})
    server.offer(server.sign(2, [deployment], **past()))
    server.wait_report("rejected", reason="expired")
    server.offer(server.sign(2, [deployment]))
    server.wait_report("deployed", execution="e2")


def test_a_rotated_key_is_learnt_from_the_trust_document(server: FakeServer, serving: Agent) -> None:
    server.key = Ed25519PrivateKey.generate()
    server.trusted.append(server.key)
    server.trust_version = 2
    server.deploy(1, {"model.onnx": linear(2)}, execution="rotated")
    server.wait_report("deployed", execution="rotated")
    assert served(serving) == 8.0


def test_trust_never_goes_back(server: FakeServer, serving: Agent) -> None:
    server.trust_version = 0
    server.offer(server.sign(2, key=Ed25519PrivateKey.generate()))
    server.wait_report("rejected", reason="trust")
    server.wait_report("rejected", reason="signature")


CHANGED = Interface(inputs=(TensorSpec(name="x", dtype="tensor(double)", shape=(None, 4)),))
QUICK = Runtime(load_timeout_s=2.0, max_memory_mb=512)
MODELS: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "not ONNX": (b"this is no model", {}, "model"),
    "empty": (b"", {}, "model"),
    "hangs": (endless(), {"runtime": QUICK}, "load_timeout"),
    "eats memory": (hungry(), {"runtime": QUICK}, "load_memory"),
    "other inputs": (linear(2), {"interface": CHANGED}, "interface"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model_fails_and_the_old_one_serves(server: FakeServer, serving: Agent, name: str) -> None:
    data, changes, reason = MODELS[name]
    server.deploy(2, {"model.onnx": data}, **changes)
    report = server.wait_report("failed", execution="e2")
    assert (report.reason, bool(report.message)) == (reason, True)
    assert served(serving) == 4.0
    server.deploy(3, {"model.onnx": linear(3)})
    server.wait_report("deployed", execution="e3")


def test_a_wrong_digest_is_fetched_once_more_and_then_fails(server: FakeServer, serving: Agent) -> None:
    server.tamper = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    deployment = server.deploy(2, {"model.onnx": linear(2)})
    report = server.wait_report("failed", execution="e2")
    assert report.reason == "digest"
    blob = f"/api/v1/device/blobs/{deployment.files[0].sha256}"
    assert sum(path == blob for _, path, _ in server.requests) == 2
    assert served(serving) == 4.0


def test_a_blob_without_end_is_not_read_beyond_its_size(server: FakeServer, serving: Agent) -> None:
    server.tamper = lambda data: data + b"x" * 10_000_000
    server.deploy(2, {"model.onnx": linear(2)})
    assert server.wait_report("failed", execution="e2").reason == "digest"
    partial = serving.config.state_dir / "partial"
    assert sum(path.stat().st_size for path in partial.iterdir()) == 0


def test_a_missing_blob_fails(server: FakeServer, serving: Agent) -> None:
    deployment = server.install(2, {"model.onnx": linear(2)})
    server.blobs.clear()
    server.offer(server.sign(2, [deployment]))
    assert server.wait_report("failed", execution="e2").reason == "refused"
    assert served(serving) == 4.0


def test_a_download_is_resumed(server: FakeServer, serving: Agent) -> None:
    server.blob_cut, server.blob_cuts_left = 100_000, 3
    deployment = server.deploy(2, {"model.onnx": linear(2, padding=1_000_000)})
    server.wait_report("deployed", execution="e2")
    blob = f"/api/v1/device/blobs/{deployment.files[0].sha256}"
    ranges = [headers.get("range") for _, path, headers in server.requests if path == blob]
    assert len(ranges) == 4
    assert ranges[0] is None
    assert all(item is not None for item in ranges[1:])
    assert served(serving) == 8.0


def test_no_room(server: FakeServer, serving: Agent, run: Run) -> None:
    serving.stop()
    agent = run(max_model_mb=1)
    server.deploy(2, {"model.onnx": linear(2), "big.bin": bytes(2_000_000)})
    assert server.wait_report("rejected", execution="e2").reason == "too_large"
    agent.stop()
    agent = run(keep_free_mb=2**40)
    server.deploy(3, {"model.onnx": linear(3)})
    assert server.wait_report("rejected", execution="e3").reason == "no_space"
    assert served(agent) == 4.0


def test_a_model_that_fails_on_trial_is_rolled_back(server: FakeServer, serving: Agent) -> None:
    server.deploy(2, {"model.onnx": failing()}, trial=Trial(duration_s=3600, minimum_requests=1000))
    server.wait_report("trial", execution="e2")
    for _ in range(12):
        request(f"{serving.url}/infer", [1, 1, 1, 1])
    report = server.wait_report("rolled_back", execution="e2")
    assert report.reason == "trial_errors"
    assert served(serving) == 4.0


def test_a_trial_ends_well(server: FakeServer, serving: Agent) -> None:
    server.deploy(2, {"model.onnx": linear(2)}, trial=Trial(duration_s=0.2, minimum_requests=20))
    server.wait_report("trial", execution="e2")
    for _ in range(20):
        served(serving)
    server.wait_report("deployed", execution="e2")
    assert "trial" in server.states("e2")


def test_a_newer_document_cancels_a_trial_and_reverts(server: FakeServer, serving: Agent) -> None:
    server.deploy(2, {"model.onnx": linear(2)}, trial=Trial(duration_s=3600))
    server.wait_report("trial", execution="e2")
    assert served(serving) == 8.0
    hold = DesiredDeployment(id="d1", execution="e3", name="iris", action=Action.HOLD)
    server.offer(server.sign(3, [hold]))
    server.wait_report("deployed", execution="e3")
    assert server.states("e2")[-1] == "cancelled"
    assert served(serving) == 4.0


def test_a_stop_during_a_trial_goes_on_with_it(server: FakeServer, serving: Agent, run: Run) -> None:
    server.deploy(2, {"model.onnx": linear(2)}, trial=Trial(minimum_requests=5))
    server.wait_report("trial", execution="e2")
    serving.stop()
    agent = run()
    for _ in range(5):
        assert served(agent) == 8.0
    server.wait_report("deployed", execution="e2")


def test_a_newer_document_ends_a_download(server: FakeServer, serving: Agent) -> None:
    server.blob_cut, server.blob_cuts_left = 1, 10**9
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("downloading", execution="e2")
    server.blob_cuts_left = 0
    server.deploy(3, {"model.onnx": linear(3)})
    server.wait_report("deployed", execution="e3")
    assert server.states("e2")[-1] in ("cancelled", "deployed")
    assert served(serving) == 12.0


def test_a_revoked_credential_keeps_serving(server: FakeServer, serving: Agent) -> None:
    server.credential = "other"
    polls = len(server.requests)
    wait_for(lambda: len(server.requests) > polls)
    assert served(serving) == 4.0


@pytest.mark.parametrize("status", [500, 503, 301, 404, 400])
def test_a_broken_server_changes_nothing(server: FakeServer, serving: Agent, status: int) -> None:
    server.fail = status
    polls = len(server.requests)
    wait_for(lambda: len(server.requests) > polls + 3)
    assert served(serving) == 4.0
    server.fail = 0
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2", timeout_s=30)


def test_a_damaged_current_falls_back_to_previous(server: FakeServer, serving: Agent, run: Run) -> None:
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")
    serving.stop()
    entry = serving.config.state_dir / "current" / "files" / "model.onnx"
    data = bytearray(entry.read_bytes())
    data[-20] ^= 1
    entry.chmod(0o600)
    entry.write_bytes(data)
    agent = run()
    assert served(agent) == 4.0


def test_a_damaged_journal_or_spool_does_not_stop_the_agent(
    server: FakeServer, serving: Agent, run: Run
) -> None:
    serving.stop()
    state_dir = serving.config.state_dir
    (state_dir / "journal.json").write_bytes(b"\0garbage")
    (state_dir / "spool.db").write_bytes(b"garbage" * 1000)
    agent = run()
    assert served(agent) == 4.0
    # The ratchet was kept a second time.
    server.offer(server.sign(0, [server.install(0, {"model.onnx": linear(9)})]))
    server.wait_report("rejected", reason="old_generation")
    server.deploy(2, {"model.onnx": linear(2)})
    server.wait_report("deployed", execution="e2")


def test_garbage_is_collected_and_the_two_kept(server: FakeServer, serving: Agent) -> None:
    for generation in (2, 3, 4):
        server.deploy(generation, {"model.onnx": linear(generation)})
        server.wait_report("deployed", execution=f"e{generation}")
    root = serving.config.state_dir
    assert sorted(path.name for path in (root / "releases").iterdir()) == ["e3-3", "e4-4"]
    assert len(list((root / "blobs" / "sha256").glob("*/*"))) == 2
    assert os.readlink(root / "current") == "releases/e4-4"
    assert os.readlink(root / "previous") == "releases/e3-3"
    assert (root / "identity.json").stat().st_mode & 0o777 == 0o600
    assert root.stat().st_mode & 0o777 == 0o700


def test_a_second_agent_on_the_folder_is_refused(serving: Agent) -> None:
    with pytest.raises(errors.StateError, match="another agent"):
        Agent(serving.config).start()


def test_update_under_load_fails_no_request(server: FakeServer, serving: Agent) -> None:
    stop = threading.Event()
    seen: set[Any] = set()

    def load() -> None:
        while not stop.is_set():
            seen.add(served(serving))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for generation in (2, 3):
        server.deploy(generation, {"model.onnx": linear(generation)})
        server.wait_report("deployed", execution=f"e{generation}")
    wait_for(lambda: 12.0 in seen)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert seen == {4.0, 8.0, 12.0}


def test_a_report_names_its_bundle(server: FakeServer, serving: Agent) -> None:
    deployment = server.deploy(2, {"model.onnx": linear(2)})
    report = server.wait_report("deployed", execution="e2")
    assert report.digest == documents.bundle_digest(deployment.files)
