"""Send what waits in the outbox: a thread for each receiver that has something due, so that one who is slow
holds nobody else up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edgeflow_mlflow.db.engine import FenceLostError
from edgeflow_mlflow.services import deliveries
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)


class Sender:
    """`step` is called each second; `on_fence_lost` when another hub has taken over."""

    def __init__(self, state: State, on_fence_lost: Callable[[], None]) -> None:
        self._state = state
        self._on_fence_lost = on_fence_lost
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def step(self) -> None:
        """Begin with every receiver that waits and is not being told already."""
        for name in deliveries.waiting(self._state):
            with self._lock:
                if name in self._busy:
                    continue
                self._busy.add(name)
            # Daemons: a receiver that hangs must not keep the hub from ending. What it was being told is
            # told again by the next hub, with the same delivery id.
            threading.Thread(
                target=self._tell, args=(name,), name=f"edgeflow-tell-{name}", daemon=True
            ).start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()

    def _tell(self, name: str) -> None:
        try:
            deliveries.forward(self._state, name)
            while not self._stopped.is_set() and deliveries.send_next(self._state, name):
                pass
        except FenceLostError:
            self._on_fence_lost()
        except Exception:
            logger.exception("%s could not be told, and is tried again", name, extra={"action": "tell_error"})
        finally:
            with self._lock:
                self._busy.discard(name)
