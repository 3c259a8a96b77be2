"""What device and server tell each other, as typed records, in JSON.

The records only ever grow: a field is never renamed, retyped or removed; a new one comes last and has
a default; a field that a reader does not know is ignored. A change of meaning is a new record. The
golden files of `tests/wire/golden` hold one message of each kind and are only ever added to.

All times are RFC 3339 in UTC. Times of a device are advisory: order comes from `boot`, `seq` and the
moment of receipt.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from edgeflow_agent import errors, typed
from edgeflow_agent.wire.states import State

MAX_ENVELOPE_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 256 * 1024
MAX_FILES = 64
MAX_FILE_BYTES = 8 * 2**30
MAX_TOTAL_BYTES = 16 * 2**30
# A file name is data, never a path: flat, no leading dot, so that no join can leave a folder.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SHA256 = re.compile(r"[0-9a-f]{64}")

Text = Annotated[str, msgspec.Meta(max_length=4096)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Immutable, by keyword, defaults left out on the wire."""


class Action(enum.StrEnum):
    """What a device is to do with a deployment."""

    INSTALL = "install"  # serve this model
    HOLD = "hold"  # keep serving whatever is served now
    REMOVE = "remove"  # stop serving


class FileRef(_Record, frozen=True):
    """One file of a model bundle: flat name, SHA-256 in lower-case hex, size in bytes."""

    path: Name
    sha256: Name
    size: Count


class ModelRef(_Record, frozen=True):
    """Which model version this is; `run_id` is empty when the registry does not know the run."""

    name: Name
    version: Name
    run_id: Name = ""


class TensorSpec(_Record, frozen=True):
    """One input or output of the graph. `dtype` is ONNX Runtime's word (`tensor(float)`); a dimension
    is a number, or a name or None where it is free."""

    name: Name
    dtype: Name
    shape: tuple[int | str | None, ...] = ()


class Column(_Record, frozen=True):
    """One column of a tabular input, from the MLflow signature, in order."""

    name: Name
    type: Name = "double"


class Interface(_Record, frozen=True):
    """What a caller sends and gets. `columns` is empty for tensor models; `labels` maps class index to
    name, in order, empty when the model carries none."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    columns: tuple[Column, ...] = ()
    labels: tuple[Name, ...] = ()


class Runtime(_Record, frozen=True):
    """How to run the model. Zero means: the device's own setting. Times in seconds, memory in MiB."""

    providers: tuple[Name, ...] = ()
    threads: Count = 0
    max_concurrent: Count = 0
    load_timeout_s: float = 120.0
    max_memory_mb: Count = 4096


class Trial(_Record, frozen=True):
    """How long a new model is on trial after the swap, and what sends it back.

    The trial ends well when `duration_s` have passed and at least `minimum_requests` were answered, or
    when nothing but the clock is asked for (`minimum_requests` 0). It ends badly as soon as, over at
    least ten requests, the share of model errors exceeds `max_error_rate`, or the mean latency exceeds
    `max_latency_ratio` times the previous model's (0: not watched).

    It never waits for ever: after 24 hours, or twice `duration_s` where that is longer, of a running
    agent, what was seen decides. Then any request counts for `max_error_rate`, and with fewer requests
    than asked for, none at all included, the trial ends well.
    """

    duration_s: float = 0.0
    minimum_requests: Count = 0
    max_error_rate: float = 0.1
    max_latency_ratio: float = 0.0


class Monitor(_Record, frozen=True):
    """What telemetry measures against: the digest of the baseline file (empty: none). `capture_rate` is the
    share of requests that the device keeps whole, to be fetched on demand."""

    baseline_sha256: Name = ""
    window_s: float = 60.0
    capture_rate: float = 0.0


class DesiredDeployment(_Record, frozen=True):
    """One deployment that a target is to carry out, complete: nothing else needs to be asked. Once it
    serves this one, it keeps no bundle whose digest is in `recalled` to fall back on."""

    id: Name
    execution: Name
    name: Name
    action: Action
    model: ModelRef | None = None
    files: tuple[FileRef, ...] = ()
    entry: Name = ""
    interface: Interface = Interface()
    runtime: Runtime = Runtime()
    trial: Trial = Trial()
    monitor: Monitor = Monitor()
    commit: Name = "local"
    recalled: tuple[Name, ...] = ()


class DesiredState(_Record, frozen=True):
    """The payload of a signed desired document: what one target is to be, at one generation.

    Empty `deployments` asks for nothing: the device keeps what it has. `expires_at` stops a device from
    *starting* on an old document; it never unloads a model.
    """

    fleet: Name
    target: Name
    generation: Count
    issued_at: datetime
    expires_at: datetime
    deployments: tuple[DesiredDeployment, ...] = ()
    v: int = 1


class Trust(_Record, frozen=True):
    """The payload of a trust document, signed by the root key: which keys may sign desired documents.
    `keys` maps key id to the raw public key in base64."""

    fleet: Name
    version: Count
    keys: dict[str, str]
    v: int = 1


class TrialFigures(_Record, frozen=True):
    """What a device has counted of a model on trial, since the swap or the agent's last start.

    `errors` are runs that the model failed, `non_finite` answers with a NaN or an infinity in them; both are
    among `requests`. `mean_s` is the mean time of a run, `usual_s` that of the model before (0: there was
    none).
    """

    requests: Count = 0
    errors: Count = 0
    non_finite: Count = 0
    mean_s: float = 0.0
    usual_s: float = 0.0


class Report(_Record, frozen=True):
    """One step of an execution, or its end. (`boot`, `seq`) is its identity: stored exactly once.

    `accepted` and `rejected` go to `deploy/ack`, the rest to `deploy/status`. A refused document that
    names no execution (bad signature, wrong target) is reported with an empty `execution`. `trial` comes
    with every report of the state `trial` and with the end that follows it.
    """

    boot: Name
    seq: Count
    execution: Name
    generation: Count
    state: State
    attempt: Count = 1
    reason: Name = ""
    message: Text = ""
    progress: float | None = None
    digest: Name = ""
    at: datetime | None = None
    trial: TrialFigures | None = None


class PresenceKind(enum.StrEnum):
    """Why a presence message was sent."""

    BIRTH = "birth"
    HEARTBEAT = "heartbeat"
    GOODBYE = "goodbye"


class Presence(_Record, frozen=True):
    """What a device is and serves. Sent at every connect, every heartbeat, and at a clean stop.

    `digest` is the bundle digest that answers requests right now (empty: none); `generation` the
    highest one handled for good: a server restored from a backup continues above it.
    """

    kind: PresenceKind
    boot: Name
    generation: Count = 0
    execution: Name = ""
    deployment: Name = ""
    model: Name = ""
    version: Name = ""
    digest: Name = ""
    previous_digest: Name = ""
    agent_version: Name = ""
    onnxruntime_version: Name = ""
    platform: Name = ""
    hostname: Name = ""
    infer_url: Name = ""
    serving: bool = False
    stale: bool = False
    pending_reports: Count = 0
    dropped_reports: Count = 0
    uptime_s: float = 0.0
    at: datetime | None = None


class Stored(_Record, frozen=True):
    """Ids that the server has committed: only this empties a device's spool."""

    boot: Name
    seqs: tuple[Count, ...]


class RpcRequest(_Record, frozen=True):
    """A question to a device: `predict` (body: what `POST /infer` takes) or `diagnose`."""

    id: Name
    method: Name
    body: msgspec.Raw = msgspec.Raw(b"null")


class RpcResponse(_Record, frozen=True):
    """The answer: `status` as HTTP would give it, and the same body."""

    id: Name
    status: int
    body: msgspec.Raw = msgspec.Raw(b"null")


class EnrolRequest(_Record, frozen=True):
    """A device asks for an identity. The same `idempotency_key` within ten minutes gives the same
    answer, so a lost reply does not burn the token."""

    token: Name
    target: Name
    idempotency_key: Name
    agent_version: Name = ""
    platform: Name = ""
    hostname: Name = ""


class EnrolResponse(_Record, frozen=True):
    """The identity: shown once. `root_key` is the raw root public key in base64; its fingerprint must be
    the one in the token. `trust` is the signed trust document as text."""

    target: Name
    credential: Name
    fleet: Name
    root_key: Name
    trust: str
    mqtt: Name = ""


class Session(_Record, frozen=True):
    """Where and how often a device should talk, as the server sees it now (seconds; `mqtt` may be empty).

    `rotate` is false where a device must not exchange its credential by itself: at a broker that keeps
    the devices' passwords and does not hear of new ones.
    """

    target: Name
    fleet: Name
    mqtt: Name = ""
    trust_version: Count = 0
    heartbeat_s: float = 15.0
    poll_s: float = 5.0
    slow_poll_s: float = 60.0
    rotate: bool = True


class ReportsRequest(_Record, frozen=True):
    """What a device posts when MQTT is away: reports of its spool and its presence."""

    presence: Presence | None = None
    reports: tuple[Report, ...] = ()


class ReportsResponse(_Record, frozen=True):
    """Which of them are committed."""

    stored: tuple[Stored, ...] = ()


Record = TypeVar("Record", bound=_Record)


def encode(record: _Record) -> bytes:
    """JSON bytes of a record."""
    return msgspec.json.encode(record)


def raw_json(data: bytes) -> msgspec.Raw:
    """JSON bytes for a field that is passed through; raise ContractError when they are none."""
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise errors.ContractError(f"not valid JSON: {error}") from error
    return msgspec.Raw(data)


def decode(kind: type[Record], data: bytes | str, *, limit: int = MAX_MESSAGE_BYTES) -> Record:
    """A record from JSON; raise ContractError that names the field that is wrong."""
    if len(data) > limit:
        raise errors.ContractError(
            f"{kind.__name__} of {len(data)} bytes is over the limit of {limit}", reason="too_large"
        )
    try:
        return typed.read(kind, data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise errors.ContractError(f"not a valid {kind.__name__}: {error}") from error


def bundle_digest(files: Iterable[FileRef]) -> str:
    """SHA-256 in hex over the sorted names and digests of a bundle's files: the identity of a model's
    content, whatever it is called."""
    lines = sorted(f"{item.sha256} {item.path}\n" for item in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_install(deployment: DesiredDeployment) -> None:
    """Raise ContractError when an install does not keep the limits on names, counts and sizes."""
    files = deployment.files
    problem = ""
    if not files:
        problem = "it lists no files"
    elif len(files) > MAX_FILES:
        problem = f"it lists {len(files)} files, at most {MAX_FILES} are allowed"
    elif len({item.path.casefold() for item in files}) != len(files):
        problem = "it lists a file name twice"
    elif deployment.entry not in {item.path for item in files}:
        problem = f"its entry {deployment.entry!r} is not among its files"
    elif sum(item.size for item in files) > MAX_TOTAL_BYTES:
        problem = f"its files are over {MAX_TOTAL_BYTES} bytes together"
    elif deployment.model is None:
        problem = "it names no model"
    else:
        for item in files:
            if not FILE_NAME.fullmatch(item.path):
                problem = f"{item.path[:140]!r} is not a plain file name"
            elif not SHA256.fullmatch(item.sha256):
                problem = f"the digest of {item.path} is not a SHA-256 in hex"
            elif item.size > MAX_FILE_BYTES:
                problem = f"{item.path} is over {MAX_FILE_BYTES} bytes"
    if problem:
        raise errors.ContractError(f"the install is refused: {problem}", reason="document")


def to_builtins(record: _Record) -> Any:
    """Plain dicts, lists and strings, for storing in JSON columns."""
    return msgspec.to_builtins(record)


def from_builtins(kind: type[Record], value: Any) -> Record:
    """The record again, from plain data; raise ContractError when it does not fit."""
    try:
        return typed.convert(kind, value)
    except msgspec.MsgspecError as error:
        raise errors.ContractError(f"not a valid {kind.__name__}: {error}") from error
