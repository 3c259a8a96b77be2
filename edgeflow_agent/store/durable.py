"""Writing so that a power cut leaves the old content or the new, never a mixture, never neither; reading so
that one bad moment of the storage is none of the device."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgeflow_agent.store import crashpoints

T = TypeVar("T")
_PAUSES_S = (0.02, 0.2)


def patiently(read: Callable[[], T]) -> T:
    """What `read` gives. One that fails is tried again: cards and flash often read at the second attempt.

    Raise the OSError of the last attempt; FileNotFoundError at once.
    """
    for pause in _PAUSES_S:
        try:
            return read()
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(pause)
    return read()


def sync_folder(folder: Path) -> None:
    """Make renames and new names within `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes, *, mode: int = 0o600, label: str = "") -> None:
    """Put `data` in the place of whatever `path` held: temporary file, fsync, rename, fsync the folder.

    `label` names the crash points on the way.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if label:
            crashpoints.reach(f"{label}.before_rename")
        temporary.replace(path)
    except BaseException:
        # After a failed fsync the pages may be marked clean: never try again on the same file.
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)
    if label:
        crashpoints.reach(f"{label}.after_rename")


def create(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a new file in a folder that nobody looks into yet. The caller syncs the folder."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def point(link: Path, destination: str) -> None:
    """Make `link` a symbolic link to `destination`, atomically."""
    temporary = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(destination)
    temporary.replace(link)
    sync_folder(link.parent)


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process left in `folder`; nobody may be writing there.
    One that cannot be removed does no harm."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".*.new"):
            with contextlib.suppress(OSError):
                path.unlink()


def remove(path: Path) -> None:
    """Remove a file or link for good; one that is not there is fine."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_folder(path.parent)
