"""amqtt behind the gate: the only importer of amqtt, and the one place that knows what it must not do.

The gate admits one connection per target and lets only well-formed packets of that target through;
amqtt then carries the protocol (CONNACK, SUBACK, PUBACK, packet ids, what is in flight). What is
overridden here, and why, was found in amqtt 0.12.1, which setup.cfg pins:

- nothing is retained and nothing is routed from device to device: the hub is the only receiver of what
  devices publish, and the gate has handed it over before amqtt sees it;
- the gate keeps who listens to what. amqtt's own table is walked at every CONNECT and formatted at every
  SUBSCRIBE: 2,000 devices came in at 175 a second with it, at 485 without (two shared cores);
- the session monitor can stop a session that came back while it was busy with another; sessions here are
  never used twice, and each is dropped when its connection ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from amqtt import broker as amqtt_broker
from amqtt.plugins import base as amqtt_base

from edgeflow_agent.wire import topics
from edgeflow_mlflow.broker.connection import Connection

logger = logging.getLogger(__name__)

_LISTENER = "default"
_END_S = 0.25


class Admitted(amqtt_base.BaseAuthPlugin):  # type: ignore[misc]  # amqtt is not seen by mypy
    """Whoever comes through the gate has shown a right credential there."""

    async def authenticate(self, *, session: Any) -> bool:
        """Yes: the gate has asked."""
        return True


class _Broker(amqtt_broker.Broker):  # type: ignore[misc]  # amqtt is not seen by mypy
    async def retain_message(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is retained."""

    async def _broadcast_message(self, *args: Any, **kwargs: Any) -> None:
        """Nothing goes from device to device."""

    async def _session_monitor(self) -> None:
        """Sessions are dropped when their connection ends."""

    async def add_subscription(self, subscription: tuple[str, int], session: Any) -> int:
        """Granted as asked for: the gate has judged it, and remembers it."""
        return subscription[1]


class Engine:
    """Runs connections through amqtt. Everything here belongs to one event loop."""

    def __init__(self) -> None:
        self._broker: Any = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin."""
        for name in ("amqtt", "transitions"):
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.WARNING)
        self._broker = _Broker(
            {
                "listeners": {_LISTENER: {"type": "external"}},
                "plugins": {f"{Admitted.__module__}.{Admitted.__qualname__}": {}},
            }
        )
        await self._broker.start()

    async def stop(self) -> None:
        """End; every connection has ended before."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._broker.shutdown()

    async def run(self, connection: Connection) -> None:
        """Serve one connection until it ends."""
        loop = asyncio.get_running_loop()
        session = loop.create_task(self._broker.external_connected(connection, connection, _LISTENER))
        over = loop.create_task(connection.over.wait())
        try:
            await asyncio.wait({session, over}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({session}, timeout=_END_S)
            if session.done() and not session.cancelled() and (error := session.exception()) is not None:
                logger.warning("the session of %s ended with an error: %r", connection.target, error)
        finally:
            # A connection that ends right behind its CONNECT leaves amqtt waiting for ever: its reader
            # stops before the event that would report it exists.
            session.cancel()
            over.cancel()
            await asyncio.gather(session, over, return_exceptions=True)
            await self._broker._cleanup_session(connection.session_id)

    def publish(self, connection: Connection, kind: topics.Kind, payload: bytes) -> None:
        """Send what the connection owes: to the session at hand, without a search of all filters."""
        session, handler = self._broker.sessions.get(connection.session_id, (None, None))
        if handler is None or connection.closing:
            connection.settle(payload)
            return
        connection.in_flight = session.inflight_out
        topic = topics.topic(connection.target, kind)
        qos = connection.subscribed.get(kind, 0)
        sending = handler.mqtt_publish(topic, payload, qos, retain=False)
        task = asyncio.get_running_loop().create_task(sending)
        self._tasks.add(task)

        def done(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            connection.settle(payload)
            if not task.cancelled() and task.exception() is not None:
                # No PUBACK in time, or the connection ended: the hub sends again at the next birth.
                logger.debug("%s did not confirm a message: %r", connection.target, task.exception())

        task.add_done_callback(done)
