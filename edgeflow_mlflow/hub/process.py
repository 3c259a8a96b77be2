"""The hub's own process: `python -m edgeflow_mlflow.hub.process`, started by a web worker.

It reads its settings from the environment, holds the host's lock that it inherits, and ends when its
parent closes the pipe on its standard input, whatever the parent dies of.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

from edgeflow_mlflow import config, errors
from edgeflow_mlflow.broker import port
from edgeflow_mlflow.config import Config
from edgeflow_mlflow.hub.hub import Hub
from edgeflow_mlflow.services import lease, opening

logger = logging.getLogger("edgeflow.hub")

_STOPS = (signal.SIGTERM, signal.SIGINT)
_LEASE_RETRY_S = 0.5
_SWITCH_S = 0.0005
LOCK_FILE = "hub.lock"  # in the data folder
SETTING_EXIT = 78  # as sysexits.h: a setting is wrong, trying again helps nobody


def make_broker(settings: Config, handlers: port.Handlers) -> port.Broker | None:
    """The broker that the settings ask for."""
    kind = settings["mqtt.broker"]
    if kind == "off":
        return None
    if kind == "embedded":
        from edgeflow_mlflow.broker.embedded import EmbeddedBroker

        return EmbeddedBroker(
            port.EmbeddedSettings(
                host=settings["mqtt.host"],
                port=settings["mqtt.port"],
                certfile=settings["mqtt.certfile"],
                keyfile=settings["mqtt.keyfile"],
            ),
            handlers,
        )
    if urlsplit(kind).scheme in ("mqtt", "mqtts"):
        from edgeflow_mlflow.broker.link import ExternalBroker

        return ExternalBroker(port.ExternalSettings(url=kind, cafile=settings["mqtt.ca_file"]), handlers)
    raise errors.SettingError(
        "[mqtt] broker is 'embedded', 'off' or a URL mqtt(s)://host:port, "
        f"not {kind.partition('@')[2] or kind!r}"
    )


def main() -> int:
    """Run until told to stop, or until another hub has taken over."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Whoever writes gives the interpreter away at each statement, and waits so long to get it back from the
    # broker's thread, which is busy when many devices talk.
    sys.setswitchinterval(_SWITCH_S)
    stop = threading.Event()
    # Written by the handler in C: Python code of the main thread does not run when the signal comes in the
    # instant before that thread begins to wait.
    come, note = os.pipe()
    os.set_blocking(note, False)
    for number in _STOPS:
        signal.signal(number, lambda _number, _frame: None)
    signal.set_wakeup_fd(note, warn_on_full_buffer=False)
    threading.Thread(target=_end_by_signal, args=(come, stop), name="edgeflow-signal", daemon=True).start()
    threading.Thread(target=_end_with_parent, args=(stop,), name="edgeflow-parent", daemon=True).start()
    try:
        settings = config.load()
        state = opening.open_state(settings, upgrade=False)
    except errors.SettingError as error:
        logger.error("%s", error)
        return SETTING_EXIT
    holder = lease.holder_name(os.getpid())
    lock = lease.identity(Path(settings["server.data_dir"]) / LOCK_FILE)
    fence = None
    while fence is None and not stop.is_set():
        fence = lease.take(state, holder, alone_on=lock)
        if fence is None:
            stop.wait(_LEASE_RETRY_S)
    if fence is None:
        return 0
    fenced = dataclasses.replace(state, database=state.database.fenced(fence))
    hub = Hub(fenced, fence, lambda handlers: make_broker(settings, handlers))
    threading.Thread(target=_follow, args=(hub.stopped, stop), name="edgeflow-fence", daemon=True).start()
    hub.start()
    logger.info("hub runs with fence %d", fence, extra={"action": "hub_started"})
    stop.wait()
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)  # also while the interpreter ends
    hub.stop()
    return 0


def _follow(first: threading.Event, then: threading.Event) -> None:
    first.wait()
    then.set()


def _end_by_signal(come: int, stop: threading.Event) -> None:
    os.read(come, 1)
    stop.set()


def _end_with_parent(stop: threading.Event) -> None:
    # Not sys.stdin: a thread inside its buffer would stop the interpreter from ending.
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
