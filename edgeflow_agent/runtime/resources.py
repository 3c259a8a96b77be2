"""What the device is like: processor, memory, disk and temperature, as far as the system tells."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from edgeflow_agent.inference.metrics import resident
from edgeflow_agent.wire.telemetry import Resources

_ZONES = Path("/sys/class/thermal")


class ResourceReader:
    """Reads the resources; processor time is that since the reading before."""

    def __init__(self, disk: Path) -> None:
        """`disk` is a path on the disk whose free space counts."""
        self._disk = disk
        self._cpu = (time.process_time(), time.monotonic())

    def read(self, *, queue_peak: int) -> Resources:
        """What there is to know now."""
        cpu, moment = self._cpu
        self._cpu = now = (time.process_time(), time.monotonic())
        passed = now[1] - moment
        free, share = self._free()
        return Resources(
            cpu_ratio=round((now[0] - cpu) / passed, 4) if passed > 0 else None,
            rss_bytes=resident(),
            load_ratio=_load(),
            memory_free_bytes=_memory_free(),
            disk_free_bytes=free,
            disk_free_ratio=share,
            temperature_c=_temperature(),
            queue_peak=queue_peak,
        )

    def _free(self) -> tuple[int | None, float | None]:
        with contextlib.suppress(OSError):
            place = os.statvfs(self._disk)
            if place.f_blocks:
                return place.f_bavail * place.f_frsize, round(place.f_bavail / place.f_blocks, 4)
        return None, None


def _load() -> float | None:
    with contextlib.suppress(OSError):
        return round(os.getloadavg()[0] / (os.cpu_count() or 1), 3)
    return None


def _memory_free() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _temperature() -> float | None:
    found = []
    for zone in _ZONES.glob("thermal_zone*/temp"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(zone.read_text(encoding="ascii")) / 1000)
    # Some sensors say nonsense while they are off.
    return max((value for value in found if -60 < value < 250), default=None)
