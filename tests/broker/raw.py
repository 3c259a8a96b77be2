"""An MQTT client made of bytes: it can say what a well-behaved client library would not."""

from __future__ import annotations

import socket
import ssl
import struct
import urllib.parse
from dataclasses import dataclass


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def packet(first: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    size, head = len(body) if length is None else length, bytearray([first])
    while True:
        size, low = divmod(size, 128)
        head.append(low | (128 if size else 0))
        if not size:
            return bytes(head) + body


def connect(
    client_id: str,
    *,
    username: str | None = None,
    password: str | None = None,
    keepalive: int = 60,
    clean: bool = True,
    will: tuple[str, bytes] | None = None,
    level: int = 4,
    flags: int = 0,
) -> bytes:
    flags |= 2 * clean | (4 if will else 0) | (0x80 if username is not None else 0)
    flags |= 0x40 if password is not None else 0
    body = text("MQTT") + bytes([level, flags]) + struct.pack("!H", keepalive)
    body += b"\0" if level == 5 else b""
    body += text(client_id)
    if will:
        body += text(will[0]) + text(will[1])
    body += b"".join(text(part) for part in (username, password) if part is not None)
    return packet(0x10, body)


def publish(topic: str, payload: bytes = b"x", *, qos: int = 1, mid: int = 1, retain: bool = False) -> bytes:
    body = text(topic) + (struct.pack("!H", mid) if qos else b"") + payload
    return packet(0x30 | qos << 1 | retain, body)


def subscribe(*filters: str, mid: int = 1, qos: int = 1) -> bytes:
    return packet(0x82, struct.pack("!H", mid) + b"".join(text(item) + bytes([qos]) for item in filters))


@dataclass
class Seen:
    first: int
    body: bytes

    @property
    def type(self) -> int:
        return self.first >> 4

    def message(self) -> tuple[str, bytes]:
        size = struct.unpack("!H", self.body[:2])[0]
        start = 2 + size + (2 if self.first & 6 else 0)
        return self.body[2 : 2 + size].decode(), self.body[start:]

    def mid(self) -> int:
        at = 2 + struct.unpack("!H", self.body[:2])[0] if self.type == 3 else 0
        return int.from_bytes(self.body[at : at + 2], "big")


class Client:
    """A blocking connection to a broker by its URL."""

    def __init__(self, url: str, *, cafile: str = "", timeout: float = 10.0) -> None:
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname and parts.port
        self.socket: socket.socket = socket.create_connection((parts.hostname, parts.port), timeout=timeout)
        if parts.scheme == "mqtts":
            context = ssl.create_default_context(cafile=cafile)
            self.socket = context.wrap_socket(self.socket, server_hostname=parts.hostname)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def receive(self, timeout: float = 10.0) -> Seen:
        """The next packet; EOFError when the broker closed, TimeoutError when nothing comes."""
        self.socket.settimeout(timeout)
        try:
            first, length, shift = self._exactly(1)[0], 0, 0
            while True:
                byte = self._exactly(1)[0]
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return Seen(first, self._exactly(length))
        except (ConnectionError, ssl.SSLError) as error:
            raise EOFError from error

    def until(self, kind: int, timeout: float = 10.0) -> Seen:
        while (seen := self.receive(timeout)).type != kind:
            pass
        return seen

    def closed(self, timeout: float = 10.0) -> bool:
        """Whether the broker closes; what it still sends is passed over."""
        try:
            while True:
                self.receive(timeout)
        except EOFError:
            return True
        except TimeoutError:
            return False

    def log_in(self, target: str, password: str = "right", **more: object) -> Client:
        """Connect as this target and expect to be taken."""
        self.send(connect(target, username=target, password=password, **more))  # type: ignore[arg-type]
        answer = self.receive()
        assert (answer.first, answer.body) == (0x20, b"\0\0"), answer
        return self

    def answer(self, data: bytes) -> int:
        """The return code of a CONNACK."""
        self.send(data)
        seen = self.receive()
        assert seen.first == 0x20
        return seen.body[1]

    def listen(self, *topics: str) -> Client:
        self.send(subscribe(*topics))
        answer = self.until(9)
        assert set(answer.body[2:]) == {1}, answer
        return self
