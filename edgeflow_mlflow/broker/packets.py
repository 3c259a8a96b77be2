"""MQTT 3.1.1 packets as bytes: only what a device may send, and the few answers the gate gives itself.

Pure: bytes in, packets out. Anything that is not exactly right is a PacketError and nothing else, so
that the broker behind the gate only ever sees well-formed packets.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field

_MAX_LENGTH_BYTES = 4


class PacketError(Exception):
    """The bytes are no MQTT 3.1.1 that a device may send."""


class Type(enum.IntEnum):
    """The packet types that occur between a device and the gate."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    UNSUBSCRIBE = 10
    PINGREQ = 12
    DISCONNECT = 14


class Code(enum.IntEnum):
    """Return codes of a CONNACK."""

    PROTOCOL = 1
    IDENTIFIER = 2
    UNAVAILABLE = 3
    CREDENTIALS = 4
    NOT_AUTHORIZED = 5


FIRST = frozenset({Type.CONNECT})
LATER = frozenset(
    {Type.PUBLISH, Type.PUBACK, Type.SUBSCRIBE, Type.UNSUBSCRIBE, Type.PINGREQ, Type.DISCONNECT}
)
_FLAGS = {Type.SUBSCRIBE: 2, Type.UNSUBSCRIBE: 2}
_SIZES = {Type.PUBACK: 2, Type.PINGREQ: 0, Type.DISCONNECT: 0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Packet:
    """One whole packet: `raw` as it came, `body` what follows the fixed header."""

    type: Type
    flags: int
    start: int
    raw: bytes

    @property
    def body(self) -> bytes:
        """What follows the fixed header."""
        return self.raw[self.start :]


@dataclass(frozen=True, kw_only=True, slots=True)
class Connect:
    """What a CONNECT asks for. Of another protocol level only the level is known."""

    level: int
    client_id: str = ""
    clean_session: bool = False
    will: bool = False
    keepalive_s: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Publish:
    """A message; `packet_id` is 0 for QoS 0."""

    topic: str
    qos: int
    retain: bool
    packet_id: int
    payload: bytes


class Parser:
    """Cuts a byte stream into packets: `feed` bytes, then take packets until None.

    The size and the type are judged on the first bytes of a packet, before its body is kept.
    """

    def __init__(self, *, limit: int, allowed: frozenset[Type]) -> None:
        self.limit = limit
        self.allowed = allowed
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what arrived."""
        self._buffer += data

    def take(self) -> Packet | None:
        """The next whole packet, or None until more bytes come."""
        buffer = self._buffer
        if not buffer:
            return None
        kind = _packet_type(buffer[0], self.allowed)
        length, start = 0, 1
        while True:
            if start >= len(buffer):
                return None
            byte = buffer[start]
            length |= (byte & 0x7F) << (7 * (start - 1))
            start += 1
            if byte < 0x80:
                break
            if start > _MAX_LENGTH_BYTES:
                raise PacketError("the length of a packet is malformed")
        if length > self.limit:
            raise PacketError(f"a packet of {length} bytes is over the limit of {self.limit}")
        expected = _SIZES.get(kind)
        if expected is not None and length != expected:
            raise PacketError(f"{kind.name} with {length} bytes instead of {expected}")
        end = start + length
        if len(buffer) < end:
            return None
        packet = Packet(type=kind, flags=buffer[0] & 0x0F, start=start, raw=bytes(buffer[:end]))
        del buffer[:end]
        return packet


def _packet_type(first: int, allowed: frozenset[Type]) -> Type:
    try:
        kind = Type(first >> 4)
    except ValueError:
        kind = Type.CONNACK  # any type that no device may send
    if kind not in allowed:
        raise PacketError(f"a packet of type {first >> 4} is not allowed here")
    flags = first & 0x0F
    if kind is Type.PUBLISH:
        if flags & 0x06 == 0x06:
            raise PacketError("PUBLISH with QoS 3")
    elif flags != _FLAGS.get(kind, 0):
        raise PacketError(f"{kind.name} with wrong flags")
    return kind


class _Fields:
    """Reads fields off a body, in order."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, size: int) -> bytes:
        data = self._body[self._at : self._at + size]
        if len(data) != size:
            raise PacketError("a packet ends in the middle of a field")
        self._at += size
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def packet_id(self) -> int:
        number = self.number()
        if number == 0:
            raise PacketError("packet id 0")
        return number

    def data(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        try:
            text = self.data().decode()
        except UnicodeDecodeError as error:
            raise PacketError("a text is not UTF-8") from error
        if "\0" in text:
            raise PacketError("a text holds NUL")
        return text

    def rest(self) -> bytes:
        data = self._body[self._at :]
        self._at = len(self._body)
        return data

    @property
    def more(self) -> bool:
        return self._at < len(self._body)

    def end(self) -> None:
        if self.more:
            raise PacketError("a packet holds more than it should")


def parse_connect(packet: Packet) -> Connect:
    """Raise PacketError when it is no CONNECT of any known version."""
    fields = _Fields(packet.body)
    name = fields.text()
    level = fields.byte()
    if (name, level) != ("MQTT", 4):
        if name not in {"MQTT", "MQIsdp"} or level == 4:
            raise PacketError("CONNECT of an unknown protocol")
        return Connect(level=level)
    flags = fields.byte()
    keepalive = fields.number()
    client_id = fields.text()
    will = bool(flags & 0x04)
    if flags & 0x01 or flags & 0x18 == 0x18 or (not will and flags & 0x38):
        raise PacketError("CONNECT with wrong flags")
    if will:
        fields.text()
        fields.data()
    has_user, has_password = bool(flags & 0x80), bool(flags & 0x40)
    if has_password and not has_user:
        raise PacketError("CONNECT with a password and no user name")
    username = fields.text() if has_user else None
    password = fields.text() if has_password else None
    fields.end()
    return Connect(
        level=level,
        client_id=client_id,
        clean_session=bool(flags & 0x02),
        will=will,
        keepalive_s=keepalive,
        username=username,
        password=password,
    )


def parse_publish(packet: Packet) -> Publish:
    """The message of a PUBLISH."""
    fields = _Fields(packet.body)
    qos = packet.flags >> 1 & 3
    if qos == 0 and packet.flags & 0x08:
        raise PacketError("PUBLISH with QoS 0 marked as a repeat")
    return Publish(
        topic=fields.text(),
        qos=qos,
        retain=bool(packet.flags & 1),
        packet_id=fields.packet_id() if qos else 0,
        payload=fields.rest(),
    )


def parse_subscribe(packet: Packet) -> list[tuple[str, int]]:
    """Filters and QoS of a SUBSCRIBE."""
    fields = _Fields(packet.body)
    fields.packet_id()
    filters = []
    while fields.more:
        name, qos = fields.text(), fields.byte()
        if qos > 2:
            raise PacketError("SUBSCRIBE with QoS 3")
        filters.append((name, qos))
    if not filters:
        raise PacketError("SUBSCRIBE to nothing")
    return filters


def parse_unsubscribe(packet: Packet) -> list[str]:
    """Filters of an UNSUBSCRIBE."""
    fields = _Fields(packet.body)
    fields.packet_id()
    filters = []
    while fields.more:
        filters.append(fields.text())
    if not filters:
        raise PacketError("UNSUBSCRIBE from nothing")
    return filters


def parse_puback(packet: Packet) -> int:
    """The packet id that a PUBACK confirms."""
    return _Fields(packet.body).packet_id()


def refusal(code: Code, level: int) -> bytes:
    """The CONNACK that says no, in the words of the client's own version."""
    if level == 5:
        reason = {Code.PROTOCOL: 0x84, Code.IDENTIFIER: 0x85, Code.CREDENTIALS: 0x86}.get(code, 0x87)
        return bytes((Type.CONNACK << 4, 3, 0, reason, 0))
    return bytes((Type.CONNACK << 4, 2, 0, code))


def encode_connect(client_id: str, username: str) -> bytes:
    """A CONNECT without password, will or keep-alive: what the broker behind the gate gets to see."""
    body = struct.pack("!H4sBBH", 4, b"MQTT", 4, 0x82, 0) + _text(client_id) + _text(username)
    return bytes((Type.CONNECT << 4, *_length(len(body)))) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("!H", len(data)) + data


def _length(size: int) -> bytes:
    data = bytearray()
    while True:
        size, low = divmod(size, 0x80)
        data.append(low | (0x80 if size else 0))
        if not size:
            return bytes(data)
