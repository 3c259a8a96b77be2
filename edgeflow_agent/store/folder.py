"""The state folder: private to one user, used by one agent at a time."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from pathlib import Path
from types import TracebackType

import msgspec

from edgeflow_agent import errors, typed
from edgeflow_agent.store import durable

logger = logging.getLogger(__name__)

_PRIVATE = 0o700


class AgentFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a running agent tells other tools on the device (`agent.json`)."""

    url: str
    pid: int


class StateFolder:
    """An opened and locked state folder. The lock ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._descriptor: int | None = None

    def __enter__(self) -> StateFolder:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Create the folder if needed and lock it; raise StateError when another agent has it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if stat.S_IMODE(self.path.stat().st_mode) != _PRIVATE:
                self.path.chmod(_PRIVATE)
            descriptor = _open_lock(self.path / "lock")
        except OSError as error:
            raise errors.StateError(
                f"cannot use the state folder {self.path}: {error.strerror}; "
                "choose another one with --state-dir"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise errors.StateError(
                f"another agent already runs on the state folder {self.path}; "
                "stop it first, or give this one its own folder with --state-dir",
                reason="locked",
            ) from error
        self._descriptor = descriptor
        durable.sweep(self.path)

    def close(self) -> None:
        """Give the folder back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def announce(self, url: str) -> None:
        """Write where this agent answers; on a full disk, serving goes before being found."""
        record = AgentFile(url=url, pid=os.getpid())
        try:
            durable.replace(self.path / "agent.json", msgspec.json.encode(record))
        except OSError as error:
            logger.error("cannot write in the state folder %s: %s; make room", self.path, error.strerror)

    def withdraw(self) -> None:
        """The agent answers no more."""
        (self.path / "agent.json").unlink(missing_ok=True)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # A file system that a damage made read-only: what is there can be locked, and served.
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise


def read_agent_file(state_dir: Path) -> AgentFile | None:
    """Where the agent of this folder answers; None when none has said so."""
    try:
        return typed.read(AgentFile, (state_dir / "agent.json").read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
