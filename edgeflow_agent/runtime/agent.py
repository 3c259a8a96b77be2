"""The managed agent: which parts there are, how they are wired, in which order they start and stop."""

from __future__ import annotations

import logging
import platform
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edgeflow_agent import errors, version
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.inference import engine
from edgeflow_agent.inference.slot import Slot
from edgeflow_agent.link.http import DeviceApi, Server
from edgeflow_agent.link.mqtt import MqttLink
from edgeflow_agent.runtime import process
from edgeflow_agent.runtime.collecting import Collector
from edgeflow_agent.runtime.crash_guard import CrashGuard
from edgeflow_agent.runtime.deployer import Deployer
from edgeflow_agent.runtime.executor import Executor
from edgeflow_agent.runtime.forwarder import Forwarder
from edgeflow_agent.runtime.inbox import Inbox
from edgeflow_agent.runtime.poller import Poller
from edgeflow_agent.runtime.reporting import Reporter
from edgeflow_agent.runtime.rotation import Rotation
from edgeflow_agent.runtime.rpc import Rpc
from edgeflow_agent.runtime.serving import ServingThread
from edgeflow_agent.runtime.window_keeper import WindowKeeper
from edgeflow_agent.store import spool
from edgeflow_agent.store.blobs import BlobStore
from edgeflow_agent.store.captures import CaptureStore
from edgeflow_agent.store.folder import StateFolder
from edgeflow_agent.store.identity import CurrentIdentity, IdentityFile
from edgeflow_agent.store.journal import Entry, Journal, highest_generation
from edgeflow_agent.store.learned import LearnedBaselines
from edgeflow_agent.store.lives import LivesFile
from edgeflow_agent.store.releases import ReleaseStore
from edgeflow_agent.wire import documents, topics
from edgeflow_agent.wire.documents import Presence, PresenceKind, Session

logger = logging.getLogger(__name__)

_MIB = 1 << 20


class Agent:
    """One device. `start` returns when it answers requests and works in the background; `stop` ends it.

    Raise StateError or ConfigError from `start` when it cannot run at all: the folder is in use, the
    device is not enrolled, the port is taken.
    """

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self._folder = StateFolder(config.state_dir)
        self._started_at = time.monotonic()
        self.slot = Slot()
        self._link: MqttLink | None = None
        self._running = False

    @property
    def url(self) -> str:
        """Where inference requests are answered."""
        return self._serving.url

    def start(self) -> None:
        """Open the state folder, serve what is on disk, and begin to talk to the server."""
        process.prepare()
        self._folder.open()
        try:
            self._compose()
            self._begin()
        except OSError as error:
            self._folder.close()
            raise errors.StateError(
                f"cannot use the state folder {self._folder.path}: {error}; look whether its disk is damaged"
            ) from error
        except BaseException:
            self._folder.close()
            raise
        self._running = True
        self._deployer.start()
        self._collector.start()
        self._forwarder.start()
        if self.config.mqtt not in ("", "off"):
            self._use_broker(self.config.mqtt)
        elif self.config.mqtt != "off" and self._identity.now.mqtt:
            self._use_broker(self._identity.now.mqtt)
        self._poller.start()
        logger.info("agent %s answers at %s", self._identity.now.target, self._serving.url)

    def _begin(self) -> None:
        # From here on a death may be a model's; an error that ends the start is none.
        self._guard.begin(self._deployer.active)
        try:
            self._deployer.prepare()
            self._serving.start()
            self._folder.announce(self._serving.url)
            self._executor.boot()
            self._executor.clear_up(self._deployer.active)
        except BaseException:
            self._guard.end()
            raise

    def alive(self) -> bool:
        """Whether requests can still be answered."""
        return self._serving.alive()

    def stop(self) -> None:
        """Answer what was asked, say goodbye, release the folder; may be called twice."""
        if not self._running:
            return
        self._running = False
        # First of all: whoever loses patience with a stop and kills it must not blame the model.
        self._guard.end()
        self._folder.withdraw()
        self._poller.stop()
        self._deployer.stop()
        self._collector.stop()
        self._forwarder.stop()
        if self._link is not None:
            self._link.stop()
        self._serving.stop()
        self._spool.close()
        self._windows.close()
        self._folder.close()

    def _compose(self) -> None:
        config, root = self.config, self._folder.path
        self._identity = _enrolled(IdentityFile(root), config)
        url = config.server_url or self._identity.now.server_url
        self._server = Server(url, ca_file=config.ca_file, timeout_s=config.link_timeout_s)
        self._spool = spool.of_reports(root / "spool.db", max_bytes=int(config.spool_max_mb * _MIB))
        self._windows = spool.of_windows(
            root / "telemetry.db", max_bytes=int(config.telemetry_spool_max_mb * _MIB)
        )
        learned = LearnedBaselines(root / "learned")
        captures = CaptureStore(root / "captures", max_bytes=int(config.telemetry_capture_max_mb * _MIB))
        blobs = BlobStore(root)
        self._releases = ReleaseStore(root, blobs)
        self._forwarder = Forwarder(
            self._spool, self._windows, learned, self._api, self._presence, resend_s=config.resend_s
        )
        reporter = Reporter(self._spool, self._forwarder.wake)

        self._guard = CrashGuard(LivesFile(root), self._releases, reporter)

        def on_progress(entry: Entry, share: float | None) -> None:
            self._deployer.progressed(entry, share)

        self._executor = Executor(config, blobs, self._releases, self.slot, self._api, on_progress)
        self._deployer = Deployer(
            Journal(root), self._executor, reporter, lambda: self.slot.current, self._guard.fallen
        )
        self._deployer.on_settled = self._forwarder.announce
        self._poller = Poller(
            self._api,
            lambda: self._inbox,
            generation=self._generation,
            mqtt_connected=lambda: self._link is not None and self._link.connected,
            on_session=self._apply_session,
            rotation=Rotation(
                self._identity,
                self._api_with,
                days=config.credential_days,
                on_change=self._credential_changed,
            ),
        )
        self._deployer.on_expired = self._poller.forget_etag
        self._inbox = Inbox(self._identity, reporter, self._deployer.offer, self._poller.want_trust)
        self._serving = ServingThread(
            config,
            self.slot,
            extra_metrics=self._spool_metrics,
            drift=lambda: self._collector.drift(),
            previous_digest=self._previous_digest,
        )
        self._collector = Collector(
            config,
            self.slot,
            self._serving.metrics,
            self._serving.observer,
            WindowKeeper(self._windows, self._forwarder.wake),
            learned=learned,
            captures=captures if config.telemetry_capture_max_mb else None,
        )
        self._rpc = Rpc(self._serving, self._spool, captures, root, self._facts)

    def _api(self) -> DeviceApi:
        return self._api_with(self._identity.now.credential)

    def _api_with(self, credential: str) -> DeviceApi:
        return DeviceApi(self._server, credential)

    # What the parts ask about each other.

    def _previous_digest(self) -> str:
        try:
            name = self._releases.previous()
            return self._releases.manifest(name).digest if name else ""
        except (errors.StateError, OSError):
            return ""

    def _generation(self) -> int:
        return highest_generation(self._deployer.handled)

    def _spool_metrics(self) -> Mapping[str, float]:
        return {
            "edgeflow_spool_pending": float(self._spool.pending_count),
            "edgeflow_spool_dropped_total": float(self._spool.dropped),
            "edgeflow_telemetry_spool_pending": float(self._windows.pending_count),
            "edgeflow_telemetry_spool_dropped_total": float(self._windows.dropped),
        }

    def _presence(self, kind: PresenceKind) -> Presence:
        serving = self.slot.current
        return Presence(
            kind=kind,
            boot=self._spool.boot,
            generation=self._generation(),
            execution=serving.execution if serving else "",
            deployment=serving.deployment if serving else "",
            model=serving.model.name if serving else "",
            version=serving.model.version if serving else "",
            digest=serving.digest if serving else "",
            previous_digest=self._previous_digest(),
            agent_version=version.VERSION,
            onnxruntime_version=engine.VERSION,
            platform=platform.platform()[:256],
            hostname=platform.node()[:256],
            infer_url=self._serving.url,
            serving=serving is not None and kind is not PresenceKind.GOODBYE,
            stale=self._inbox.stale,
            pending_reports=self._spool.pending_count,
            dropped_reports=self._spool.dropped,
            uptime_s=round(time.monotonic() - self._started_at, 3),
            at=datetime.now(UTC),
        )

    def _facts(self) -> dict[str, Any]:
        presence = self._presence(PresenceKind.HEARTBEAT)
        return {
            "target": self._identity.now.target,
            "server": self._server.url,
            "mqtt": self._link.url if self._link is not None else "",
            "mqtt_connected": self._link is not None and self._link.connected,
            "deploying": self._deployer.busy,
            "presence": documents.to_builtins(presence),
        }

    # MQTT.

    def _apply_session(self, session: Session) -> None:
        self._forwarder.heartbeat_s = max(session.heartbeat_s, 0.1)
        if not self.config.mqtt:
            self._use_broker(session.mqtt)

    def _credential_changed(self) -> None:
        if self._link is not None:
            self._use_broker(self._link.url)
        self._forwarder.credential_changed()

    def _use_broker(self, url: str) -> None:
        identity = self._identity.now
        if self._link is not None:
            if (self._link.url, self._link.credential) == (url, identity.credential):
                return
            self._forwarder.link = None
            self._link.stop()
            self._link = None
        if not url or not self._running:
            return
        try:
            link = MqttLink(
                url,
                target=identity.target,
                credential=identity.credential,
                on_connect=self._forwarder.connected,
                on_disconnect=self._on_disconnect,
                on_message=self._on_message,
                reconnect_min_s=random.uniform(1.0, 3.0),  # noqa: S311
                ca_file=self.config.ca_file,
            )
        except errors.ConfigError as error:
            logger.error("MQTT is not used: %s", error)
            return
        self._link = self._forwarder.link = link
        link.start()

    def _on_disconnect(self) -> None:
        self._forwarder.wake()
        self._poller.wake()

    def _on_message(self, kind: topics.Kind, payload: bytes) -> None:
        if kind is topics.Kind.DEPLOY:
            self._inbox.receive(payload)
        elif kind is topics.Kind.STORED:
            try:
                self._forwarder.stored(documents.decode(documents.Stored, payload))
            except errors.ContractError as error:
                logger.warning("ignored a confirmation: %s", error)
        elif kind is topics.Kind.RPC_REQUEST:
            self._rpc.answer(payload, self._send_rpc)

    def _send_rpc(self, payload: bytes) -> None:
        link = self._link
        if link is not None:
            link.publish(topics.Kind.RPC_RESPONSE, payload)


def _enrolled(file: IdentityFile, config: AgentConfig) -> CurrentIdentity:
    identity = file.read()
    if identity is None:
        raise errors.ConfigError(
            "this device is not enrolled; run `edgeflow-agent enroll --server URL --token eft1_… "
            "--target NAME` with a token from `edgeflow tokens create`, or "
            "`edgeflow-agent serve model.onnx` to serve a file without a server"
        )
    if config.target and config.target != identity.target:
        raise errors.ConfigError(
            f"agent.target is {config.target!r}, but this device was enrolled as {identity.target!r}; "
            "remove the setting, or enrol again with --force and a token from `edgeflow tokens create "
            f"--target {config.target}`"
        )
    return CurrentIdentity(file, identity)
