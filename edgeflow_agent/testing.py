"""A small server of the device API on a kernel port, for tests of agents without an Edgeflow server.

It signs with real keys and speaks real HTTP; what it serves is set by its fields. Tests may break it on
purpose through `tamper`, `blob_cut`, `lost_rotations`, `rejects_rotated` and `fail`.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.server
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeflow_agent import typed
from edgeflow_agent.wire import documents, signing, telemetry, tokens
from edgeflow_agent.wire.documents import (
    Action,
    DesiredDeployment,
    DesiredState,
    FileRef,
    ModelRef,
    Presence,
    Report,
    Stored,
)
from edgeflow_agent.wire.telemetry import TelemetryWindow

_FLEET = "testfleet"


def file_ref(path: str, data: bytes) -> FileRef:
    """How a document refers to these bytes."""
    return FileRef(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


@dataclasses.dataclass
class FakeServer:
    """One server for one target. `envelope` is what a device is offered; None: nothing yet."""

    target: str = "robot-07"
    fleet: str = _FLEET
    mqtt: str = ""
    poll_s: float = 0.1
    heartbeat_s: float = 0.5
    envelope: bytes | None = None
    stores: bool = True  # whether reports are confirmed
    fail: int = 0  # answer this status to everything
    blob_cut: int = 0  # break off every blob answer after so many bytes, while positive
    blob_cuts_left: int = 0
    lost_rotations: int = 0  # so many answers with a new credential never arrive
    rejects_rotated: bool = False  # hand out new credentials, and then do not know them
    tamper: Callable[[bytes], bytes] | None = None

    def __post_init__(self) -> None:
        self.root = Ed25519PrivateKey.generate()
        self.key = Ed25519PrivateKey.generate()
        self.trust_version = 1
        self.trusted = [self.key]
        self.blobs: dict[str, bytes] = {}
        self.reports: list[Report] = []
        self.presence: list[Presence] = []
        self.windows: list[TelemetryWindow] = []
        self.baselines: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.enrolments: dict[str, str] = {}
        self.credential = tokens.format_credential(tokens.Credential("a" * 16, "b" * 64))
        self.rotated = ""  # handed out, not used yet
        self.rotations = 0
        self.wants_rotation = True
        self.lock = threading.Lock()
        self._etags = itertools.count(1)
        self._etag = ""
        self._known: set[tuple[str, int]] = set()
        self._start(0)

    # Life.

    def _start(self, port: int) -> None:
        outer = self

        class Handler(_Handler):
            server_of_tests = outer

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Go away."""
        self._http.shutdown()
        self._http.server_close()

    def restart(self) -> None:
        """Come back on the same port."""
        self._start(int(self._http.server_address[1]))

    # What the server says.

    def token(self) -> str:
        """An enrolment token of this server."""
        fingerprint = signing.fingerprint(signing.raw_public_key(self.root.public_key()))
        return tokens.format_token(tokens.Token("c" * 16, "d" * 48, fingerprint))

    def admits(self, credential: str) -> bool:
        """Whether it lives. The first use of a new one ends the one before."""
        with self.lock:
            if credential and credential == self.rotated and not self.rejects_rotated:
                self.credential, self.rotated = credential, ""
            return credential == self.credential

    def rotate(self) -> str:
        """A new credential, which lives beside the old one until it is used."""
        with self.lock:
            self.rotations += 1
            self.rotated = tokens.format_credential(tokens.Credential(f"{self.rotations:016x}", "b" * 64))
            return self.rotated

    def trust(self) -> bytes:
        """The signed trust document."""
        keys = {}
        for key in self.trusted:
            raw = signing.raw_public_key(key.public_key())
            keys[signing.key_id(raw)] = base64.b64encode(raw).decode()
        trust = documents.Trust(fleet=self.fleet, version=self.trust_version, keys=keys)
        return signing.sign(signing.TRUST, documents.encode(trust), self.root)

    def add_blob(self, data: bytes) -> str:
        """Make a file available; returns its digest."""
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def install(self, generation: int, files: dict[str, bytes], **changes: Any) -> DesiredDeployment:
        """An install of these files (the first one is the entry)."""
        for data in files.values():
            self.add_blob(data)
        version = changes.pop("version", str(generation))
        values: dict[str, Any] = {
            "id": "d1",
            "execution": f"e{generation}",
            "name": "iris",
            "action": Action.INSTALL,
            "model": ModelRef(name="iris", version=version, run_id="run1"),
            "files": tuple(file_ref(name, data) for name, data in files.items()),
            "entry": next(iter(files), ""),
        }
        return DesiredDeployment(**(values | changes))

    def sign(self, generation: int, deployments: Iterable[DesiredDeployment] = (), **changes: Any) -> bytes:
        """A signed desired document."""
        key = changes.pop("key", self.key)
        now = datetime.now(UTC)
        values: dict[str, Any] = {
            "fleet": self.fleet,
            "target": self.target,
            "generation": generation,
            "issued_at": now,
            "expires_at": now + timedelta(days=7),
            "deployments": tuple(deployments),
        }
        return signing.sign(signing.DESIRED, documents.encode(DesiredState(**(values | changes))), key)

    def offer(self, envelope: bytes | None) -> None:
        """What devices are given from now on."""
        with self.lock:
            self.envelope = envelope
            self._etag = f'"{next(self._etags)}"'

    def deploy(self, generation: int, files: dict[str, bytes], **changes: Any) -> DesiredDeployment:
        """Offer an install."""
        deployment = self.install(generation, files, **changes)
        self.offer(self.sign(generation, [deployment]))
        return deployment

    # What devices said.

    def store(self, report: Report) -> None:
        """Take a report, once."""
        with self.lock:
            if (report.boot, report.seq) not in self._known:
                self._known.add((report.boot, report.seq))
                self.reports.append(report)

    def store_window(self, packed: bytes) -> Stored:
        """Take a window, once."""
        window = telemetry.unpack(packed)
        with self.lock:
            if (window.boot, window.seq) not in self._known:
                self._known.add((window.boot, window.seq))
                self.windows.append(window)
        return Stored(boot=window.boot, seqs=(window.seq,))

    def forget(self) -> None:
        """Start over with an empty history."""
        with self.lock:
            self.reports.clear()
            self._known.clear()

    def states(self, execution: str) -> list[str]:
        """The states that were reported of an execution, in order, repeats left out."""
        with self.lock:
            states = [item.state.value for item in self.reports if item.execution == execution]
        return [state for state, _ in itertools.groupby(states)]

    def wait_report(
        self, state: str, *, execution: str | None = None, reason: str | None = None, timeout_s: float = 60.0
    ) -> Report:
        """The first report that fits; raise AssertionError with what came instead."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self.lock:
                for report in self.reports:
                    if (
                        report.state == state
                        and execution in (None, report.execution)
                        and reason in (None, report.reason)
                    ):
                        return report
            time.sleep(0.01)
        with self.lock:
            came = [(item.execution, item.state.value, item.reason, item.message) for item in self.reports]
        raise AssertionError(f"no report {state!r} of {execution!r} ({reason!r}); came: {came}")


class _Handler(http.server.BaseHTTPRequestHandler):
    server_of_tests: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _note(self) -> bool:
        outer = self.server_of_tests
        headers = {key.lower(): value for key, value in self.headers.items()}
        with outer.lock:
            outer.requests.append((self.command, self.path, headers))
        if outer.fail:
            self._json(outer.fail, {"error_code": "BROKEN", "message": "broken on purpose"})
            return False
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        if "/device/" in self.path and not (scheme == "Bearer" and outer.admits(credential)):
            self._json(401, {"error_code": "UNAUTHENTICATED", "message": "unknown credential"})
            return False
        return True

    def do_GET(self) -> None:
        """The routes that a device reads."""
        if not self._note():
            return
        outer = self.server_of_tests
        if self.path == "/api/v1/device/session":
            session = documents.Session(
                rotate=outer.wants_rotation,
                target=outer.target,
                fleet=outer.fleet,
                mqtt=outer.mqtt,
                trust_version=outer.trust_version,
                heartbeat_s=outer.heartbeat_s,
                poll_s=outer.poll_s,
                slow_poll_s=outer.poll_s * 20,
            )
            self._send(200, documents.encode(session))
        elif self.path == "/api/v1/device/trust":
            self._send(200, outer.trust())
        elif self.path == "/api/v1/device/desired":
            with outer.lock:
                envelope, etag = outer.envelope, outer._etag
            if envelope is None:
                self._send(204, b"")
            elif self.headers.get("If-None-Match") == etag:
                self._send(304, b"")
            else:
                self._send(200, envelope, {"ETag": etag})
        elif self.path.startswith("/api/v1/device/blobs/"):
            self._blob(self.path.rpartition("/")[2])
        else:
            self._json(404, {"error_code": "NOT_FOUND", "message": "no such route"})

    def _blob(self, digest: str) -> None:
        outer = self.server_of_tests
        data = outer.blobs.get(digest)
        if data is None:
            self._json(404, {"error_code": "NOT_FOUND", "message": "no such blob"})
            return
        data, status, headers = (outer.tamper or bytes)(data), 200, {"ETag": f'"{digest}"'}
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and self.headers.get("If-Range") == f'"{digest}"':
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        if outer.blob_cut and outer.blob_cuts_left > 0:
            outer.blob_cuts_left -= 1
            self._send(status, data[: outer.blob_cut], headers, length=len(data))
            self.close_connection = True
            return
        self._send(status, data, headers)

    def do_POST(self) -> None:
        """The routes that a device writes to."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if not self._note():
            return
        outer = self.server_of_tests
        if self.path == "/api/v1/enroll":
            self._enrol(documents.decode(documents.EnrolRequest, body))
        elif self.path == "/api/v1/device/reports":
            request = documents.decode(documents.ReportsRequest, body)
            if request.presence is not None:
                with outer.lock:
                    outer.presence.append(request.presence)
            for report in request.reports:
                outer.store(report)
            stored = tuple(Stored(boot=item.boot, seqs=(item.seq,)) for item in request.reports)
            response = documents.ReportsResponse(stored=stored if outer.stores else ())
            self._send(200, documents.encode(response))
        elif self.path == "/api/v1/device/telemetry":
            sent = typed.read(telemetry.TelemetryRequest, body)
            kept = tuple(outer.store_window(packed) for packed in sent.windows) if outer.stores else ()
            self._send(200, msgspec.json.encode(telemetry.TelemetryResponse(stored=kept)))
        elif self.path == "/api/v1/device/baselines":
            upload = typed.read(telemetry.BaselineUpload, body)
            outer.baselines[upload.digest] = upload.baseline
            self._json(200, {})
        elif self.path == "/api/v1/device/rotate":
            self._rotate()
        else:
            self._json(404, {"error_code": "NOT_FOUND", "message": "no such route"})

    def _rotate(self) -> None:
        outer = self.server_of_tests
        new = outer.rotate()
        if outer.lost_rotations > 0:
            outer.lost_rotations -= 1
            self.close_connection = True
            return
        self._json(200, {"credential": new})

    def _enrol(self, request: documents.EnrolRequest) -> None:
        outer = self.server_of_tests
        if request.token != outer.token():
            self._json(401, {"error_code": "UNAUTHENTICATED", "message": "unknown token"})
            return
        outer.enrolments[request.idempotency_key] = request.target
        response = documents.EnrolResponse(
            target=request.target,
            credential=outer.credential,
            fleet=outer.fleet,
            root_key=base64.b64encode(signing.raw_public_key(outer.root.public_key())).decode(),
            trust=outer.trust().decode(),
            mqtt=outer.mqtt,
        )
        self._send(200, documents.encode(response))

    def _json(self, status: int, value: Any) -> None:
        self._send(status, msgspec.json.encode(value))

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True
