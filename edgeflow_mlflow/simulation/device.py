"""How one simulated device talks: a message, an answer or a moment in, messages and requests out.

No I/O and no clock. `now` is the time of day in seconds; whoever carries out what comes out tells the device
what came of it.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.version import VERSION
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import (
    Presence,
    PresenceKind,
    Report,
    ReportsRequest,
    ReportsResponse,
    Session,
)
from edgeflow_agent.wire.states import State
from edgeflow_agent.wire.topics import Kind
from edgeflow_mlflow.simulation import chance
from edgeflow_mlflow.simulation.memory import Character, Identity, Memory
from edgeflow_mlflow.simulation.outbox import Outbox
from edgeflow_mlflow.simulation.outputs import Dial, Fetch, HangUp, Output, Poll, Polled, Post, Publish
from edgeflow_mlflow.simulation.verifying import Verifier
from edgeflow_mlflow.simulation.walk import Decision, Walk

_SESSION_EVERY_POLLS = 12
_MAX_BACKOFF_S = 60.0
_REVOKED_RETRY_S = 60.0
_LOOK_AROUND_S = 1.0
_TRUST_EVERY_S = 1.0
_NEVER = float("inf")


class Device:
    """One device. `born` is when the simulation began."""

    def __init__(
        self, identity: Identity, memory: Memory, character: Character, *, boot: str, born: float
    ) -> None:
        self.identity = identity
        self.memory = memory
        self.changed = False  # there is something to keep since somebody looked
        self.linked = False
        self.away = False
        self._character = character
        self._born = born
        self._verifier = Verifier(identity)
        self._outbox = Outbox(boot, memory.reports, resend_s=character.resend_s)
        self._walk = Walk(identity.target, memory, character, self._tell)
        self._session: Session | None = None
        self._broker = "" if character.http else identity.mqtt
        self._dialling = False
        self._dial_at = born + chance.draw(character.seed, "dial", identity.target)
        self._dial_failures = 0
        self._polling = False
        # Not all in the same moment.
        self._poll_at = born + chance.draw(character.seed, "poll", identity.target)
        self._poll_failures = 0
        self._polls = 0
        self._etag = ""
        self._trust_at = -_NEVER  # when it was last asked for
        self._unverified = b""  # a document that waits for a newer trust document
        self._birth = True
        self._heartbeat_at = -_NEVER  # the last one
        self._posting = False
        self._post_at = born
        self._post_failures = 0
        self._fetching = ""
        self._draws = 0

    @property
    def waiting(self) -> int:
        """How many reports nobody has confirmed."""
        return len(self._outbox)

    def keep(self) -> Memory:
        """What must survive a restart, up to date."""
        self.changed = False
        self.memory.reports = self._outbox.waiting()
        self.memory.dropped += self._outbox.dropped
        self._outbox.dropped = 0
        return self.memory

    # Time.

    def tick(self, now: float) -> list[Output]:
        """What is to be done at this moment."""
        self.away = self._character.is_away(self.identity.target, now - self._born)
        out: list[Output] = []
        if self.away and (self.linked or self._dialling):
            self.disconnected(now)
            out.append(HangUp())
        self._walk.tick(now, online=not self.away)
        if self._walk.settled:
            self._walk.settled, self._heartbeat_at = False, -_NEVER
        if self.away:
            return out
        self._fetch(out)
        if not self._polling and now >= self._poll_at:
            out.append(self._poll(now))
        if self._broker and not self.linked and not self._dialling and now >= self._dial_at:
            self._dialling = True
            out.append(Dial(self._broker))
        if self.linked:
            self._speak(out, now)
        if not self._posting and now >= self._post_at:
            self._post(out, now)
        return out

    def due_at(self, now: float) -> float:
        """When `tick` is wanted next, if nothing else happens before."""
        due = self._walk.due_at(online=not self.away)
        if self._character.offline > 0:
            due = min(due, now + _LOOK_AROUND_S)
        if self.away:
            return due
        if not self._polling:
            due = min(due, self._poll_at)
        if self._broker and not self.linked and not self._dialling:
            due = min(due, self._dial_at)
        talk = min(self._outbox.due_at(), self._heartbeat_at + self._heartbeat_s)
        if self.linked:
            due = min(due, talk)
        elif not self._posting:
            due = min(due, max(talk, self._post_at))
        return due

    @property
    def _heartbeat_s(self) -> float:
        return max(self._session.heartbeat_s, 0.1) if self._session is not None else 15.0

    def _fetch(self, out: list[Output]) -> None:
        wanted = self._walk.to_fetch()
        if wanted is not None and not self._fetching:
            self._fetching = wanted.execution
            out.append(Fetch(wanted))

    @property
    def _wants_trust(self) -> bool:
        newer = self._session is not None and self._session.trust_version > self._verifier.version
        return newer or bool(self._unverified)

    def _poll(self, now: float) -> Poll:
        self._polling = True
        if self._wants_trust:
            self._trust_at = now
        return Poll(
            session=self._session is None or self._polls % _SESSION_EVERY_POLLS == 0,
            trust=self._wants_trust,
            etag=self._etag,
            generation=self.memory.generation,
        )

    def _speak(self, out: list[Output], now: float) -> None:
        """Over MQTT: who this is, what has happened, and at last what it is now. The server takes an end that
        it did not hear of from what serves, so the report of an end goes first."""
        if self._birth:
            self._introduce(out, PresenceKind.BIRTH, now)
        for report in self._outbox.take(now, mqtt=True, unheard=False):
            ack = report.state in (State.ACCEPTED, State.REJECTED)
            out.append(Publish(Kind.ACK if ack else Kind.STATUS, documents.encode(report)))
        if now - self._heartbeat_at >= self._heartbeat_s:
            self._introduce(out, PresenceKind.HEARTBEAT, now)

    def _introduce(self, out: list[Output], kind: PresenceKind, now: float) -> None:
        out.append(Publish(Kind.PRESENCE, documents.encode(self.presence(kind, now))))
        self._birth, self._heartbeat_at = False, now

    def _post(self, out: list[Output], now: float) -> None:
        """Over HTTP: everything where there is no MQTT, else what MQTT seems to lose."""
        due = not self.linked and (self._birth or now - self._heartbeat_at >= self._heartbeat_s)
        reports = self._outbox.take(now, mqtt=False, unheard=True if self.linked else None)
        if not due and not reports:
            return
        presence = None
        if due:
            kind = PresenceKind.BIRTH if self._birth else PresenceKind.HEARTBEAT
            presence = self.presence(kind, now)
            self._heartbeat_at = now
        self._posting = True
        out.append(Post(ReportsRequest(presence=presence, reports=tuple(reports))))

    def presence(self, kind: PresenceKind, now: float) -> Presence:
        """What this device is and serves."""
        served = self.memory.served
        return Presence(
            kind=kind,
            boot=self._outbox.boot,
            generation=self.memory.generation,
            execution=served.execution if served else "",
            deployment=served.deployment if served else "",
            model=served.model.name if served else "",
            version=served.model.version if served else "",
            digest=served.digest if served else "",
            previous_digest=self.memory.previous,
            agent_version=VERSION,
            platform="simulated",
            hostname=self.identity.target,
            serving=served is not None and kind is not PresenceKind.GOODBYE,
            pending_reports=len(self._outbox),
            dropped_reports=self.memory.dropped + self._outbox.dropped,
            uptime_s=round(now - self._born, 3),
            at=datetime.fromtimestamp(now, UTC),
        )

    def goodbye(self, now: float) -> list[Output]:
        """The last words of a clean end."""
        presence = self.presence(PresenceKind.GOODBYE, now)
        if self.linked:
            return [Publish(Kind.PRESENCE, documents.encode(presence))]
        if self.away or self._post_failures or self._birth:
            return []
        return [Post(ReportsRequest(presence=presence, reports=tuple(self._outbox.waiting()[:20])))]

    # What comes by MQTT.

    def connected(self, now: float) -> None:
        """The broker has let this device in: it introduces itself, and repeats what nobody confirmed."""
        self.linked, self._dialling, self._dial_failures = True, False, 0
        self._birth = True
        self._outbox.again()

    def disconnected(self, now: float) -> None:
        """The connection has ended, whoever ended it."""
        if self.linked:
            # What poll finds is wanted sooner now.
            self._poll_at = min(self._poll_at, now + self._spread(1.0))
        self.linked, self._dialling = False, False
        self._dial_at = now + 1.0 + self._spread(2.0)

    def dial_failed(self, now: float) -> None:
        """The broker cannot be reached, or says no."""
        self.linked, self._dialling = False, False
        self._dial_failures += 1
        self._dial_at = now + self._backoff(self._dial_failures)

    def message(self, kind: Kind, payload: bytes, now: float) -> list[Output]:
        """Something came by MQTT."""
        try:
            if kind is Kind.DEPLOY:
                self.receive(payload, now)
            elif kind is Kind.STORED:
                stored = documents.decode(documents.Stored, payload)
                self.changed |= self._outbox.stored(stored)
            elif kind is Kind.RPC_REQUEST:
                return [self._answer(documents.decode(documents.RpcRequest, payload), now)]
        except errors.ContractError:
            return []  # as on a device: nothing that comes is fatal
        return self.tick(now)

    def _answer(self, request: documents.RpcRequest, now: float) -> Publish:
        facts = documents.to_builtins(self.presence(PresenceKind.HEARTBEAT, now))
        status, body = 200, {"healthy": True, "simulated": True, "presence": facts}
        if request.method != "diagnose":
            text = "a simulated device runs no model"
            status, body = 501, {"error": {"reason": "simulated", "message": text}}
        answer = documents.RpcResponse(
            id=request.id, status=status, body=msgspec.Raw(msgspec.json.encode(body))
        )
        return Publish(Kind.RPC_RESPONSE, documents.encode(answer))

    # Desired documents, by either way.

    def receive(self, envelope: bytes, now: float, *, final: bool = False) -> bool:
        """A desired document; False when it was refused or, unless `final`, has to wait for trust."""
        digest = hashlib.sha256(envelope).hexdigest()
        try:
            desired, key = self._verifier.desired(envelope)
        except errors.SignatureError as error:
            if final:
                self._refuse(digest, error, now)
                return False
            # Perhaps a key that came after our trust document: ask once, then judge. A flood of documents
            # that nobody signed must not become a flood of requests.
            self._unverified = envelope
            self._poll_at = min(self._poll_at, max(now, self._trust_at + _TRUST_EVERY_S))
            return False
        except errors.ContractError as error:
            self._refuse(digest, error, now)
            return False
        before = self.memory.generation
        decision = self._walk.offer(desired, key, digest, now)
        self.changed |= self.memory.generation != before
        if decision is Decision.REJECT_EXPIRED:
            self._etag = ""  # a newer copy is wanted
        return True

    def _refuse(self, digest: str, error: errors.ContractError, now: float) -> None:
        self._walk.refuse(digest, reason=error.reason, message=str(error), now=now)

    # What comes of requests.

    def polled(self, answer: Polled, now: float) -> list[Output]:
        """The server has answered a poll."""
        self._polling, self._poll_failures = False, 0
        self._polls += 1
        if answer.session is not None:
            self._session = answer.session
            self._broker = "" if self._character.http else answer.session.mqtt
        session = self._session
        delay = 5.0
        if session is not None:
            delay = session.slow_poll_s if self.linked else session.poll_s
        if answer.trust:
            self._take_trust(answer.trust, now)
        if answer.desired:
            self._etag = answer.etag
            if not self.receive(answer.desired, now):
                self._etag = ""
        delay = _TRUST_EVERY_S if self._wants_trust else max(delay, 0.1)
        self._poll_at = now + delay * (0.9 + self._spread(0.2))
        return self.tick(now)

    def _take_trust(self, envelope: bytes, now: float) -> None:
        try:
            newer = self._verifier.trust(envelope)
        except errors.ContractError as error:
            self._refuse(hashlib.sha256(envelope).hexdigest(), error, now)
        else:
            if newer:
                self.identity = msgspec.structs.replace(self.identity, trust=envelope.decode())
                self.changed = True
        waiting, self._unverified = self._unverified, b""
        if waiting:
            self.receive(waiting, now, final=True)

    def poll_failed(self, status: int, now: float) -> None:
        """The server did not answer a poll (0), or not as hoped for."""
        self._polling = False
        self._poll_failures += 1
        revoked = status == 401
        self._poll_at = now + (_REVOKED_RETRY_S if revoked else self._backoff(self._poll_failures))

    def posted(self, response: ReportsResponse, now: float) -> list[Output]:
        """The server has taken reports over HTTP."""
        self._posting, self._post_failures, self._post_at = False, 0, now
        self._birth = self._birth and self.linked
        for stored in response.stored:
            self.changed |= self._outbox.stored(stored)
        return self.tick(now)

    def post_failed(self, status: int, now: float) -> None:
        """It has not."""
        self._posting = False
        self._post_failures += 1
        if not self.linked:
            self._heartbeat_at = -_NEVER
            self._outbox.again()
        revoked = status == 401
        self._post_at = now + (_REVOKED_RETRY_S if revoked else self._backoff(self._post_failures))

    def fetched(self, execution: str, reason: str, message: str, now: float) -> list[Output]:
        """The files of a deployment have come (reason empty), or never will."""
        self._fetching = ""
        self._walk.fetched(execution, reason, message, now)
        return self.tick(now)

    # Small things.

    def _tell(self, report: Report) -> None:
        self._outbox.add(report)
        self.changed = True

    def _spread(self, width: float) -> float:
        self._draws += 1
        return width * chance.draw(self._character.seed, self.identity.target, str(self._draws))

    def _backoff(self, failures: int) -> float:
        span = min(_MAX_BACKOFF_S, 2.0 ** min(failures - 1, 10))
        return 0.1 + self._spread(span)
