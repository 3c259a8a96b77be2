"""A server's keys and one simulated device, without a network: the test plays everybody else."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeflow_agent.wire import documents, signing
from edgeflow_agent.wire.documents import (
    Action,
    DesiredDeployment,
    DesiredState,
    FileRef,
    ModelRef,
    Presence,
    Report,
    Session,
    Stored,
    Trial,
)
from edgeflow_agent.wire.topics import Kind
from edgeflow_mlflow.simulation.device import Device
from edgeflow_mlflow.simulation.memory import Character, Identity, Memory
from edgeflow_mlflow.simulation.outputs import Dial, HangUp, Output, Poll, Polled, Post, Publish

START = 1_900_000_000.0
FLEET = "fleet"
TARGET = "sim-0001"


def raw(key: Ed25519PrivateKey) -> bytes:
    return signing.raw_public_key(key.public_key())


class Authority:
    """Whoever signs."""

    def __init__(self) -> None:
        self.root = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
        self.key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        self.key_id = signing.key_id(raw(self.key))

    def trust(self, version: int = 1, *keys: Ed25519PrivateKey) -> bytes:
        trusted = {
            signing.key_id(raw(key)): base64.b64encode(raw(key)).decode() for key in keys or (self.key,)
        }
        trust = documents.Trust(fleet=FLEET, version=version, keys=trusted)
        return signing.sign(signing.TRUST, documents.encode(trust), self.root)

    def identity(self) -> Identity:
        return Identity(
            target=TARGET,
            fleet=FLEET,
            credential="efd1_" + "a" * 16 + "_" + "b" * 64,
            root_key=base64.b64encode(raw(self.root)).decode(),
            trust=self.trust().decode(),
            mqtt="mqtt://broker:1883",
        )

    def sign(self, desired: DesiredState, key: Ed25519PrivateKey | None = None) -> bytes:
        return signing.sign(signing.DESIRED, documents.encode(desired), key or self.key)


AUTHORITY = Authority()


def wish(
    generation: int,
    content: str = "one",
    *,
    action: Action = Action.INSTALL,
    trial_s: float = 0,
    **changes: Any,
) -> DesiredState:
    """A desired document; `content` stands for the model's bytes."""
    file = FileRef(path="model.onnx", sha256=hashlib.sha256(content.encode()).hexdigest(), size=1000)
    install = action is Action.INSTALL
    deployment = DesiredDeployment(
        id="d1",
        execution=f"e{generation}",
        name="iris",
        action=action,
        model=ModelRef(name="iris", version=content) if install else None,
        files=(file,) if install else (),
        entry="model.onnx" if install else "",
        trial=Trial(duration_s=trial_s),
    )
    issued = datetime.fromtimestamp(START, UTC)
    values: dict[str, Any] = {
        "fleet": FLEET,
        "target": TARGET,
        "generation": generation,
        "issued_at": issued,
        "expires_at": issued + timedelta(days=7),
        "deployments": (deployment,),
    }
    return DesiredState(**(values | changes))


class World:
    """Drives one device, and hears what it says."""

    def __init__(self, memory: Memory | None = None, *, boot: str = "boot", **character: Any) -> None:
        self.now = START
        self.character = Character(**({"fastest_s": 1.0, "slowest_s": 5.0} | character))
        self.device = Device(
            AUTHORITY.identity(), memory or Memory(), self.character, boot=boot, born=self.now
        )
        self.stores = True
        self.answers = True  # HTTP
        self.broker = True
        self.session = Session(target=TARGET, fleet=FLEET, mqtt="mqtt://broker:1883", trust_version=1)
        self.trust = AUTHORITY.trust()
        self.desired = b""
        self.said: list[tuple[float, str, Report]] = []  # when, by which way, what
        self.presence: list[Presence] = []
        self.asked: list[Poll] = []

    def advance(self, seconds: float) -> None:
        """Let time pass as the loop does it: at every moment that the device has asked for."""
        end = self.now + seconds
        while True:
            self.carry_out(self.device.tick(self.now))
            due = max(self.device.due_at(self.now), self.now + 0.05)
            if due > end:
                self.now = end
                return
            self.now = due

    def offer(self, desired: DesiredState) -> None:
        """By MQTT."""
        self.carry_out(self.device.message(Kind.DEPLOY, AUTHORITY.sign(desired), self.now))

    def carry_out(self, wanted: list[Output]) -> None:
        device = self.device
        for item in wanted:
            if isinstance(item, Publish):
                self._hear(item)
            elif isinstance(item, Dial):
                if self.broker:
                    device.connected(self.now)
                else:
                    device.dial_failed(self.now)
            elif isinstance(item, Poll):
                self.asked.append(item)
                if self.answers:
                    answer = Polled(
                        session=self.session if item.session else None,
                        trust=self.trust if item.trust else b"",
                        desired=self.desired,
                    )
                    self.carry_out(device.polled(answer, self.now))
                else:
                    device.poll_failed(0, self.now)
            elif isinstance(item, Post):
                self._take(item)
            else:
                assert isinstance(item, HangUp), item

    def _hear(self, item: Publish) -> None:
        assert self.device.linked, "it speaks without a connection"
        if item.kind is Kind.PRESENCE:
            self.presence.append(documents.decode(Presence, item.payload))
            return
        report = documents.decode(Report, item.payload)
        assert (item.kind is Kind.ACK) == (report.state in ("accepted", "rejected"))
        self.said.append((self.now, "mqtt", report))
        if self.stores:
            self.confirm(report)

    def confirm(self, report: Report) -> None:
        """The server has it."""
        stored = documents.encode(Stored(boot=report.boot, seqs=(report.seq,)))
        self.carry_out(self.device.message(Kind.STORED, stored, self.now))

    def _take(self, item: Post) -> None:
        if not self.answers:
            self.device.post_failed(0, self.now)
            return
        if item.request.presence is not None:
            self.presence.append(item.request.presence)
        self.said += [(self.now, "http", report) for report in item.request.reports]
        stored = tuple(Stored(boot=item.boot, seqs=(item.seq,)) for item in item.request.reports)
        response = documents.ReportsResponse(stored=stored if self.stores else ())
        self.carry_out(self.device.posted(response, self.now))

    def history(self) -> list[Report]:
        """Every report once, in its order."""
        return sorted({report.seq: report for _, _, report in self.said}.values(), key=lambda item: item.seq)

    def states(self, execution: str) -> list[str]:
        found = [item.state.value for item in self.history() if item.execution == execution]
        return [state for before, state in zip(["", *found], found, strict=False) if state != before]
