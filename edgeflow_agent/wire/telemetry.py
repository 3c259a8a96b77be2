"""One window of telemetry: what a device did with one model for about a minute.

On the way it is JSON in zlib, the same bytes over MQTT, in the body of an HTTP request (there as base64) and
at rest. It only ever grows, as the records of `wire.documents` do.
"""

from __future__ import annotations

import zlib
from datetime import datetime
from typing import TypeVar

import msgspec

from edgeflow_agent import errors, typed
from edgeflow_agent.wire.documents import Count, Name, Stored
from edgeflow_agent.wire.sketches import SketchRecord

# A window packed must fit into a message of the broker; unpacked it must not hurt who reads it.
MAX_WINDOW_BYTES = 176 * 1024
MAX_UNPACKED_BYTES = 4 * 2**20
MAX_FEATURES = 512
# Upper ends of the buckets of the latency histogram in seconds; what is beyond has one of its own.
LATENCY_BUCKETS = (
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_LEVEL = 6


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Immutable, by keyword, defaults left out on the wire."""


class Requests(_Record, frozen=True):
    """How many requests ended how. `bad_input` is the caller's mistake, `error` the model's; `rejected` found
    the queue full, `no_model` nothing to answer it, `deadline` took too long."""

    ok: Count = 0
    bad_input: Count = 0
    rejected: Count = 0
    no_model: Count = 0
    deadline: Count = 0
    error: Count = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, name) for name in self.__struct_fields__)

    @property
    def failed(self) -> int:
        """Those that the model or the device failed, not the caller."""
        return self.rejected + self.no_model + self.deadline + self.error


class Latency(_Record, frozen=True):
    """Times from a whole request to its answer: `counts` per bucket of LATENCY_BUCKETS and beyond (empty: no
    request), and their sum in seconds."""

    counts: tuple[Count, ...] = ()
    sum_s: float = 0.0


class Resources(_Record, frozen=True):
    """What the device was like at the end of the window. None where the system does not tell.

    `cpu_ratio` is the agent's processor time over the window's length (1: one core), `load_ratio` the
    system's one-minute load per core; memory, disk and temperature (the hottest sensor) are the system's.
    `queue_peak` is how many requests at most were in work or waiting at once.
    """

    cpu_ratio: float | None = None
    rss_bytes: Count | None = None
    load_ratio: float | None = None
    memory_free_bytes: Count | None = None
    disk_free_bytes: Count | None = None
    disk_free_ratio: float | None = None
    temperature_c: float | None = None
    queue_peak: Count = 0


class TelemetryWindow(_Record, frozen=True):
    """(`boot`, `seq`) is its identity: stored exactly once.

    `digest` is the bundle that answered, `baseline` the digest of the baseline file that the `features` are
    counted against (empty: there are none), which the device made itself from its first requests where
    `is_learned`. `observed` requests went into the features, `unobserved` did not, because more came than
    the device looks at; `left_out` features of the baseline are not watched at all. `swaps` is how often
    another model took over during the window, `dropped` how many windows this device has lost so far.

    `start` and `end` are by the device's clock and advisory; `seconds` is the length by a clock that nobody
    sets.
    """

    boot: Name
    seq: Count
    start: datetime
    end: datetime
    digest: Name = ""
    model: Name = ""
    version: Name = ""
    deployment: Name = ""
    execution: Name = ""
    seconds: float = 0.0
    requests: Requests = Requests()
    latency: Latency = Latency()
    resources: Resources = Resources()
    swaps: Count = 0
    dropped: Count = 0
    pending: Count = 0
    baseline: Name = ""
    is_learned: bool = False
    observed: Count = 0
    unobserved: Count = 0
    left_out: Count = 0
    features: tuple[SketchRecord, ...] = ()


W = TypeVar("W", bound=TelemetryWindow)


class TelemetryRequest(_Record, frozen=True):
    """What a device posts when MQTT is away, or for what a message does not hold: packed windows."""

    windows: tuple[bytes, ...] = ()


class TelemetryResponse(_Record, frozen=True):
    """Which of them are committed, and which will never be taken: the number is that in the request."""

    stored: tuple[Stored, ...] = ()
    refused: dict[str, str] = {}


class BaselineUpload(_Record, frozen=True):
    """A baseline that a device has made itself for the bundle of that digest: the file as it is, or in
    zlib."""

    digest: Name
    baseline: bytes


def pack(window: TelemetryWindow) -> bytes:
    """The bytes of a window."""
    return zlib.compress(msgspec.json.encode(window), _LEVEL)


def fits(window: TelemetryWindow, *, spare: int = 0) -> bool:
    """Whether a window keeps the limits, with so many bytes to spare."""
    text = msgspec.json.encode(window)
    packed = zlib.compress(text, _LEVEL)
    return len(text) <= MAX_UNPACKED_BYTES - spare and len(packed) <= MAX_WINDOW_BYTES - spare


def unpack(data: bytes) -> TelemetryWindow:
    """A window from its bytes; raise ContractError that says what is wrong with it."""
    return unpack_as(TelemetryWindow, data)


def unpack_as(kind: type[W], data: bytes) -> W:
    """The same, of a reader's own kind of window: one that looks at less of it is quicker."""
    if len(data) > MAX_WINDOW_BYTES:
        raise errors.ContractError(
            f"a window of {len(data)} bytes is over the limit of {MAX_WINDOW_BYTES}", reason="too_large"
        )
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, MAX_UNPACKED_BYTES)
        if inflater.unconsumed_tail:
            raise errors.ContractError(
                f"a window of over {MAX_UNPACKED_BYTES} bytes unpacked", reason="too_large"
            )
        if not inflater.eof or inflater.unused_data:
            raise errors.ContractError("a window that is cut off, or has more behind it")
        return typed.read(kind, text)
    except (zlib.error, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise errors.ContractError(f"not a valid TelemetryWindow: {error}") from error
