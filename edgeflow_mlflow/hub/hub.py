"""The hub: takes in what devices say, hands out what they are to be, and keeps the clock."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.wire import documents, topics
from edgeflow_mlflow import errors
from edgeflow_mlflow.broker import port
from edgeflow_mlflow.db.engine import FenceLostError
from edgeflow_mlflow.hub.loop import Loop
from edgeflow_mlflow.hub.sender import Sender
from edgeflow_mlflow.services import (
    advance,
    alerting,
    counters,
    drift,
    drift_rows,
    enrol,
    ingest,
    lease,
    membership,
    pooling,
    reconcile,
    retention,
    rpc,
    telemetry,
)
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

_PUBLISH_S = 0.2
_RECONCILE_S = 1.0
_MEMBERSHIP_S = 5.0
_REVOCATION_S = 2.0
_RETENTION_S = 600.0
_BROKER_RETRY_S = 10.0
_SEND_S = 1.0
_COUNT_S = 15.0
# A look that has just ended is not begun again at once, whatever the setting says.
_LEAST_S = 0.2

BrokerFactory = Callable[[port.Handlers], port.Broker | None]


class Hub:
    """Runs while its fence holds. `state` must write with that fence; `stopped` is set when it is lost."""

    def __init__(self, state: State, fence: int, make_broker: BrokerFactory) -> None:
        self._state = state
        self._fence = fence
        self._make_broker = make_broker
        self._broker: port.Broker | None = None
        self._broker_error = ""
        self.stopped = threading.Event()
        self._sender = Sender(state, self.stopped.set)
        self._loops = [
            self._loop("lease", lease.RENEW_S, self._renew),
            self._loop("publish", _PUBLISH_S, self._publish),
            self._loop("reconcile", _RECONCILE_S, self._reconcile),
            self._loop("membership", _MEMBERSHIP_S, lambda: membership.follow(self._state)),
            self._loop("revocation", _REVOCATION_S, self._close_revoked),
            self._loop("retention", _RETENTION_S, self._retain),
            self._loop("drift", state.config["drift.every_s"], self._judge),
            self._loop("pooling", state.config["drift.pool_every_s"], self._pool),
            self._loop("alerts", max(_LEAST_S, state.config["alerts.every_s"]), self._look),
            self._loop("notifications", _SEND_S, self._sender.step),
            self._loop("counters", _COUNT_S, lambda: counters.count_windows(self._state)),
            self._loop("broker", _BROKER_RETRY_S, self._keep_broker),
        ]

    def _loop(self, name: str, every_s: float, step: Callable[[], None]) -> Loop:
        return Loop(name, every_s, step, fatal=FenceLostError, on_fatal=self.stopped.set)

    def start(self) -> None:
        """Begin everything; the broker first, so that the lease says where it is."""
        try:
            ingest.nobody_connected(self._state)
            self._keep_broker()
            self._renew()
        except FenceLostError:
            self.stopped.set()
            return
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """End everything and let the next hub begin at once."""
        self.stopped.set()
        self._sender.stop()
        for loop in self._loops:
            loop.stop()
        # Another hub may be at work by now: what this one still wants to write is refused, and that is all.
        if self._broker is not None:
            self._broker.stop()
        try:
            lease.release(self._state, self._fence)
        except SQLAlchemyError as error:
            logger.warning("the lease is not given back, and ends by itself: %s", error)

    # ---- steps

    def _keep_broker(self) -> None:
        # A broker that cannot start does not end the hub: devices poll meanwhile.
        if self._broker is not None:
            return
        handlers = port.Handlers(
            on_message=self._on_message,
            on_connect=lambda target: self._on_connection(target, connected=True),
            on_disconnect=lambda target: self._on_connection(target, connected=False),
            authenticate=self._authenticate,
        )
        try:
            broker = self._make_broker(handlers)
            if broker is not None:
                broker.start()
        except (errors.SettingError, OSError) as error:
            if str(error) != self._broker_error:
                logger.error(
                    "MQTT is off, devices poll instead: %s", error, extra={"action": "broker_failed"}
                )
            self._broker_error = str(error)
            return
        self._broker, self._broker_error = broker, ""
        if broker is not None:
            logger.info("MQTT at %s", broker.address, extra={"action": "broker_started"})

    def _renew(self) -> None:
        if not lease.renew(self._state, self._fence, self._detail()):
            raise FenceLostError(f"lease {self._fence} is over")

    def _detail(self) -> dict[str, Any]:
        broker = self._broker
        return {
            "pid": os.getpid(),
            "mqtt": "" if broker is None else broker.address,
            "mqtt_healthy": broker is not None and broker.healthy(),
            "mqtt_connected": 0 if broker is None else len(broker.connected()),
            "mqtt_error": self._broker_error,
        }

    def _publish(self) -> None:
        broker = self._broker
        if broker is None:
            return
        handed = {
            item.target: item.generation
            for item in reconcile.outgoing(self._state)
            if broker.publish(item.target, topics.Kind.DEPLOY, item.document)
        }
        if handed:
            ingest.offered(self._state, handed)
        for call in rpc.unsent(self._state):
            request = documents.encode(
                documents.RpcRequest(id=call.id, method=call.method, body=documents.raw_json(call.body))
            )
            if broker.publish(call.target_id, topics.Kind.RPC_REQUEST, request):
                rpc.mark_sent(self._state, call.id)

    def _reconcile(self) -> None:
        reconcile.time_out(self._state)
        advance.advance_all(self._state)
        reconcile.reissue_aging(self._state)

    def _close_revoked(self) -> None:
        broker = self._broker
        if broker is not None:
            for target in enrol.without_credential(self._state, broker.connected()):
                broker.disconnect(target)

    def _retain(self) -> None:
        reconcile.forget_old_reports(self._state)
        rpc.forget_expired(self._state)
        drift_rows.forget_old(self._state)
        retention.retain(self._state)
        alerting.forget_old(self._state)

    def _look(self) -> None:
        alerting.evaluate(self._state)

    def _judge(self) -> None:
        drift.evaluate(self._state)

    def _pool(self) -> None:
        pooling.evaluate(self._state)

    # ---- from devices

    def _authenticate(self, target: str, password: str) -> bool:
        return enrol.authenticate(self._state, password) == target

    def _on_connection(self, target: str, *, connected: bool) -> None:
        try:
            ingest.connection(self._state, target, connected=connected)
        except FenceLostError:
            self.stopped.set()

    def _on_message(self, target: str, kind: topics.Kind, payload: bytes) -> None:
        try:
            match kind:
                case topics.Kind.ACK | topics.Kind.STATUS:
                    report = documents.decode(documents.Report, payload)
                    for stored in ingest.reports(self._state, target, [report]):
                        self._send(target, topics.Kind.STORED, documents.encode(stored))
                case topics.Kind.PRESENCE:
                    presence = documents.decode(documents.Presence, payload)
                    ingest.presence(self._state, target, presence, connected=True)
                case topics.Kind.TELEMETRY:
                    answer = telemetry.take(self._state, target, [payload])
                    for problem in answer.refused.values():
                        raise agent_errors.ContractError(problem)
                    for stored in answer.stored:
                        self._send(target, topics.Kind.STORED, documents.encode(stored))
                case topics.Kind.RPC_RESPONSE:
                    rpc.answered(self._state, target, documents.decode(documents.RpcResponse, payload))
                case _:
                    raise agent_errors.ContractError(f"this server does not take {kind.value} messages yet")
        except agent_errors.ContractError as error:
            logger.warning("%s sent an unreadable %s: %s", target, kind.value, error)
            ingest.unreadable(self._state, target, kind.value, payload, str(error))
        except errors.NotFoundError as error:
            logger.warning("dropped a %s: %s", kind.value, error)
        except FenceLostError:
            self.stopped.set()

    def _send(self, target: str, kind: topics.Kind, payload: bytes) -> None:
        if self._broker is not None:
            self._broker.publish(target, kind, payload)
