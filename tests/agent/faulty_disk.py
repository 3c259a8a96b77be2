"""A disk whose calls fail from a given number on, for whole processes: reads, SQLite and all (`faults.c`)."""

from __future__ import annotations

import enum
import errno
import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness import IN_CI

_FOR_EVER = 2**31 - 1


class Calls(enum.IntFlag):
    """Which calls count, and fail."""

    READS = 1
    CHANGES = 2
    GROWS = 4


class Fault(NamedTuple):
    """What goes wrong, and for how many calls."""

    name: str
    error: int
    calls: Calls
    in_a_row: int


FAULTS = (
    # One call that fails may be tried again in vain as well.
    Fault("EIO", errno.EIO, Calls.READS | Calls.CHANGES, 2),
    Fault("ENOSPC", errno.ENOSPC, Calls.GROWS, 2),
    Fault("EROFS", errno.EROFS, Calls.CHANGES, 2),
    # A file system that a damage made read-only stays so, and a full one until somebody makes room.
    Fault("ENOSPC for long", errno.ENOSPC, Calls.GROWS, _FOR_EVER),
    Fault("EROFS for long", errno.EROFS, Calls.CHANGES, _FOR_EVER),
)


class FaultyDisk:
    """Controls the faults below `folder`. `environment` is for the processes that are to meet them."""

    def __init__(self, folder: Path, library: Path, control: Path) -> None:
        control.write_bytes(bytes(mmap.PAGESIZE))
        with control.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAULTS_FOLDER": str(folder),
            "FAULTS_CONTROL": str(control),
        }

    @property
    def seen(self) -> int:
        """How many calls were counted since the faults were armed."""
        return int(struct.unpack_from("i", self._control, 16)[0])

    @contextmanager
    def failing(self, first: int, fault: Fault) -> Iterator[None]:
        """Calls from number `first` on fail; afterwards none does."""
        last = min(first + fault.in_a_row - 1, _FOR_EVER)
        # The first number last: until it is there, nothing counts.
        struct.pack_into("4i", self._control, 4, last, fault.error, fault.calls, 0)
        struct.pack_into("i", self._control, 0, first)
        try:
            yield
        finally:
            struct.pack_into("i", self._control, 0, 0)


def build(folder: Path) -> Path:
    """Compile the library; skip the test where there is no compiler, never in CI."""
    compiler = shutil.which("cc")
    if compiler is None:
        assert not IN_CI, "a C compiler must be installed in CI"
        pytest.skip("there is no C compiler (make test installs one where it can)")
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library
