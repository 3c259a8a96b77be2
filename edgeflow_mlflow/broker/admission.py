"""Who may come in and what may pass: the rules of the gate, as pure functions of bytes and time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from edgeflow_agent import errors as wire_errors
from edgeflow_agent.wire import topics
from edgeflow_mlflow.broker import packets
from edgeflow_mlflow.broker.port import EmbeddedSettings

_TABLE_SIZE = 10_000
_LEVEL = 4


class Refusal(NamedTuple):
    """Why a CONNECT is refused: the code for the device, the words for the log."""

    code: packets.Code
    reason: str


def judge(connect: packets.Connect, settings: EmbeddedSettings) -> Refusal | None:
    """What is wrong with a CONNECT before its password is looked at; None: nothing."""
    if connect.level != _LEVEL:
        return Refusal(packets.Code.PROTOCOL, f"protocol level {connect.level}, only MQTT 3.1.1 is served")
    if not topics.is_target_id(connect.client_id):
        return Refusal(packets.Code.IDENTIFIER, "the client id is no target id")
    if connect.will:
        return Refusal(packets.Code.NOT_AUTHORIZED, "a will; presence comes from heartbeats")
    if not connect.clean_session:
        return Refusal(packets.Code.NOT_AUTHORIZED, "a kept session; only clean sessions are served")
    low, high = settings.min_keepalive_s, settings.max_keepalive_s
    if not low <= connect.keepalive_s <= high:
        return Refusal(
            packets.Code.NOT_AUTHORIZED, f"a keep-alive of {connect.keepalive_s} s, not {low} to {high}"
        )
    if connect.username is None or connect.password is None:
        return Refusal(packets.Code.CREDENTIALS, "no credential")
    if connect.username != connect.client_id:
        return Refusal(packets.Code.NOT_AUTHORIZED, "client id and user name differ")
    return None


def judge_publish(target: str, message: packets.Publish) -> topics.Kind:
    """The kind of a message that this target may send; raise PacketError otherwise."""
    if message.retain:
        raise packets.PacketError("a retained message")
    if message.qos > 1:
        raise packets.PacketError("a message with QoS 2")
    return _own_kind(target, message.topic, topics.FROM_DEVICE, "publish to")


def judge_filter(target: str, name: str) -> topics.Kind:
    """The kind that a filter asks for, which must be one exact topic of this target."""
    return _own_kind(target, name, topics.TO_DEVICE, "subscribe to")


def _own_kind(target: str, name: str, kinds: frozenset[topics.Kind], verb: str) -> topics.Kind:
    try:
        owner, kind = topics.parse(name)
    except wire_errors.ContractError:
        pass
    else:
        if owner == target and kind in kinds:
            return kind
    raise packets.PacketError(f"it may not {verb} {name[:120]!r}")


class Bucket:
    """A token bucket: `delay` takes one token and says how long to wait for it."""

    def __init__(self, *, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def delay(self, now: float) -> float:
        """Seconds to wait before the next packet may pass."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)


class Failures:
    """Remembers failed logins, so that guessing costs time and never memory.

    Two limits: per address and target, and per address. A target that has logged in from an address
    before is held to the first alone: one device with a wrong password does not lock out its
    neighbours behind the same address translation.
    """

    def __init__(self, *, per_target: int, per_address: int, window_s: float) -> None:
        self._per_target = per_target
        self._per_address = per_address
        self._window_s = window_s
        self._counts: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def blocked(self, address: str, target: str, now: float) -> bool:
        """Whether a login is refused without looking at its password."""
        if self._count((address, target), now) >= self._per_target:
            return True
        return (address, target) not in self._known and self._count(address, now) >= self._per_address

    def failed(self, address: str, target: str, now: float) -> None:
        """A wrong password."""
        for key in (address, (address, target)):
            count = self._count(key, now)
            since = self._counts[key][0] if count else now
            self._counts[key] = (since, count + 1)
            self._counts.move_to_end(key)
        _trim(self._counts)

    def succeeded(self, address: str, target: str) -> None:
        """A right password."""
        self._counts.pop((address, target), None)
        self._known[address, target] = None
        self._known.move_to_end((address, target))
        _trim(self._known)

    def _count(self, key: Hashable, now: float) -> int:
        since, count = self._counts.get(key, (now, 0))
        return count if now - since < self._window_s else 0

    def __len__(self) -> int:
        return len(self._counts) + len(self._known)


def _trim(table: OrderedDict[Hashable, tuple[float, int]] | OrderedDict[tuple[str, str], None]) -> None:
    while len(table) > _TABLE_SIZE:
        table.popitem(last=False)
