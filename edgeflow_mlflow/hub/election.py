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
from datetime import timedelta
from pathlib import Path

from edgeflow_mlflow.config import Config
from edgeflow_mlflow.hub.process import LOCK_FILE, SETTING_EXIT
from edgeflow_mlflow.services import lease

logger = logging.getLogger(__name__)

_TRY_S = 0.5
_RESTART_S = 1.0
_LONGEST_PAUSE_S = 30.0
_STOP_S = 10.0
_LOOK_S = 1.0
# A hub that renews its lease every two seconds and has not for so long does nothing else either.
_HANGS = timedelta(seconds=10)


class Elector:
    """Two threads of a web worker: one stands for election, and while its hub lives the other runs `tick`
    every `tick_s` seconds. What needs MLflow happens there, because the hub does not load it; it may take
    long, and a hub that dies meanwhile is started again all the same."""

    def __init__(
        self,
        settings: Config,
        tick: Callable[[], None],
        silence: Callable[[str], timedelta | None] = lambda _holder: None,
        tick_s: float = 2.0,
    ) -> None:
        """`silence` says how long ago a holder of the lease has renewed it."""
        self._settings = settings
        self._silence = silence
        self._lock_path = Path(settings["server.data_dir"]) / LOCK_FILE
        self._tick = tick
        self._tick_s = tick_s
        self._stop = threading.Event()
        self._leads = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._threads = [
            threading.Thread(target=self._run, name="edgeflow-elector", daemon=True),
            threading.Thread(target=self._run_ticks, name="edgeflow-registry", daemon=True),
        ]

    def start(self) -> None:
        """Begin standing for election."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and end the hub if it is ours; may be called twice."""
        self._stop.set()
        self._end_child()

    def _run(self) -> None:
        failed, pause = "", _RESTART_S
        while not self._stop.is_set():
            try:
                self._stand()
                failed, pause = "", _RESTART_S
            except Exception as error:  # a full disk, no more processes or files: it may pass
                if str(error) != failed:
                    logger.exception("cannot stand for the hub's election, and try again")
                failed = str(error)
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _stand(self) -> None:
        """Try once, and see the hub through to its end when it is ours."""
        lock = self._try_lock()
        if lock is None:
            self._stop.wait(_TRY_S)
            return
        try:
            child = self._spawn(lock)
        finally:
            os.close(lock)  # the child has its own copy: the lock lives as long as the child
        self._leads.set()
        try:
            code = self._watch(child)
        finally:
            self._leads.clear()
        if code == SETTING_EXIT and not self._stop.is_set():
            logger.error("the hub cannot start with these settings; devices are served by poll only")
            self._stop.wait(60)
        self._stop.wait(_RESTART_S)

    def _run_ticks(self) -> None:
        failed = ""
        while not self._stop.wait(self._tick_s):
            if not self._leads.is_set():
                continue
            try:
                self._tick()
                failed = ""
            except Exception as error:
                if str(error) != failed:
                    logger.exception("the registry pass failed, and is tried again")
                failed = str(error)

    def _try_lock(self) -> int | None:
        handle = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
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
        began = looked = time.monotonic()
        while child.poll() is None and not self._stop.is_set():
            self._stop.wait(0.2)
            if time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                if looked - began > _HANGS.total_seconds() and self._hangs(child.pid):
                    # It still holds the lock, so nobody else could take over. Its fence is worthless from the
                    # moment at which the next one begins.
                    logger.error("the hub has not been heard for %s: it is ended", _HANGS)
                    child.kill()
                    child.wait()
        if self._stop.is_set():
            self._end_child()
        return child.returncode or 0

    def _hangs(self, pid: int) -> bool:
        try:
            silence = self._silence(lease.holder_name(pid))
        except Exception as error:  # noqa: BLE001 - a database that is away says nothing of the hub
            logger.debug("cannot look at the lease: %s", error)
            return False
        return silence is not None and silence > _HANGS

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
