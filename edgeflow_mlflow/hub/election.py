"""Which process of this host starts the hub: the one that gets the lock. The hub then holds it itself."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgeflow_mlflow.config import Config
from edgeflow_mlflow.hub.process import SETTING_EXIT

logger = logging.getLogger(__name__)

_TRY_S = 0.5
_RESTART_S = 1.0
_STOP_S = 10.0


class Elector:
    """A thread of a web worker. While its hub lives it also runs `tick` every `tick_s` seconds: what needs
    MLflow happens there, because the hub does not load it."""

    def __init__(self, settings: Config, tick: Callable[[], None], tick_s: float = 2.0) -> None:
        self._settings = settings
        self._lock_path = Path(settings["server.data_dir"]) / "hub.lock"
        self._tick = tick
        self._tick_s = tick_s
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="edgeflow-elector", daemon=True)

    def start(self) -> None:
        """Begin standing for election."""
        self._thread.start()

    def stop(self) -> None:
        """End, and end the hub if it is ours; may be called twice."""
        self._stop.set()
        self._end_child()

    def _run(self) -> None:
        while not self._stop.is_set():
            lock = self._try_lock()
            if lock is None:
                self._stop.wait(_TRY_S)
                continue
            try:
                child = self._spawn(lock)
            finally:
                os.close(lock)  # the child has its own copy: the lock lives as long as the child
            code = self._watch(child)
            if self._stop.is_set():
                return
            if code == SETTING_EXIT:
                logger.error("the hub cannot start with these settings; devices are served by poll only")
                self._stop.wait(60)
            self._stop.wait(_RESTART_S)

    def _try_lock(self) -> int | None:
        handle = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self._settings.environment()}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "edgeflow_mlflow.hub.process"],
            stdin=subprocess.PIPE,
            pass_fds=(lock,),
            env=environment,
        )
        return self._child

    def _watch(self, child: subprocess.Popen[bytes]) -> int:
        failed = ""
        next_tick = time.monotonic() + self._tick_s
        while child.poll() is None and not self._stop.is_set():
            if time.monotonic() >= next_tick:
                try:
                    self._tick()
                    failed = ""
                except Exception as error:
                    if str(error) != failed:
                        logger.exception("the registry pass failed, and is tried again")
                    failed = str(error)
                next_tick = time.monotonic() + self._tick_s
            self._stop.wait(0.2)
        if self._stop.is_set():
            self._end_child()
        return child.returncode or 0

    def _end_child(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
