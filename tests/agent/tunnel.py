"""A network of our own: a TCP proxy that a test cuts, stalls, slows down and lets flip bytes.

It counts what it has passed on, so that a test can tell what was fetched twice.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time

_CHUNK = 64 * 1024
_LOOK_S = 0.02
_HEAD_LIMIT = 4096


class Tunnel:
    """Listens on a port of the kernel's choice and passes everything on to `host:port`, until `close`.

    `stalled`: connections are accepted, nothing passes. `rate`: bytes a second of each connection towards
    the client (0: as they come). `corrupt_after`: flip one byte towards the client, in the next connection
    that has passed so many (None: none); it is taken back once that has happened.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.stalled = False
        self.rate = 0
        self.corrupt_after: int | None = None
        self.corrupted = 0
        self.connections: list[Connection] = []
        self._closing = False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK_S)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            connection = Connection(self, client, self._server)
            with self._lock:
                self.connections.append(connection)
            connection.start()

    def open_connections(self) -> list[Connection]:
        """Those that stand now."""
        with self._lock:
            return [item for item in self.connections if item.is_alive()]

    def cut(self, *, hard: bool) -> None:
        """End every connection: `hard` as a broken line (what is under way is lost), else as a server that
        ends (what was passed on still arrives)."""
        for connection in self.open_connections():
            connection.cut = "hard" if hard else "soft"

    def close(self) -> None:
        """End."""
        self._closing = True
        self._thread.join()
        self._listener.close()
        self.cut(hard=True)
        for connection in self.open_connections():
            connection.join(10)

    def take_corruption(self, passed: int) -> bool:
        """Whether this connection is the one that is to be damaged, and now."""
        with self._lock:
            if self.corrupt_after is None or passed < self.corrupt_after:
                return False
            self.corrupt_after = None
            self.corrupted += 1
            return True


class Connection(threading.Thread):
    """One connection of a client, both ways."""

    def __init__(self, tunnel: Tunnel, client: socket.socket, server: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._tunnel = tunnel
        self._client = client
        self._address = server
        self.cut = ""
        self.client_left = False
        self.damaged = False
        self.passed = 0  # bytes towards the client
        self._asked = b""
        self._answered = b""

    # What a test looks at.

    @property
    def path(self) -> str:
        """What it asked for, if it spoke HTTP and got so far."""
        match = re.match(rb"[A-Z]+ (\S+) HTTP", self._asked)
        return match[1].decode() if match else ""

    @property
    def start_of_range(self) -> int:
        """Where the range begins that it asked for."""
        match = re.search(rb"\r\nRange: bytes=(\d+)-", self._asked)
        return int(match[1]) if match else 0

    @property
    def body(self) -> int:
        """How many bytes of the answer's body were passed on."""
        head, sign, _ = self._answered.partition(b"\r\n\r\n")
        return self.passed - len(head) - 4 if sign else 0

    # Its thread.

    def run(self) -> None:
        """Pass everything on until one side ends, or the connection is cut."""
        server = None
        try:
            server = socket.create_connection(self._address, timeout=10)
            self._pass_on(server)
        except OSError:
            self.cut = self.cut or "hard"  # whatever was under way may be lost
        finally:
            if self.cut == "hard":
                # No goodbye: what the other side has not read is gone.
                with contextlib.suppress(OSError):
                    self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._client.close()
            if server is not None:
                server.close()

    def _pass_on(self, server: socket.socket) -> None:
        self._client.settimeout(10)
        while not self.cut:
            if self._tunnel.stalled:
                time.sleep(_LOOK_S)
                continue
            ready, _, _ = select.select([self._client, server], [], [], _LOOK_S)
            if self._client in ready:
                data = self._client.recv(_CHUNK)
                if not data:
                    self.client_left = True
                    return
                self._asked = (self._asked + data)[:_HEAD_LIMIT]
                server.sendall(data)
            if server in ready and not self._from_server(server):
                return

    def _from_server(self, server: socket.socket) -> bool:
        rate = self._tunnel.rate
        data = server.recv(max(1, min(_CHUNK, rate // 20)) if rate else _CHUNK)
        if not data:
            return False
        if self._tunnel.take_corruption(self.passed):
            self.damaged = True
            middle = len(data) // 2
            data = data[:middle] + bytes((data[middle] ^ 0x40,)) + data[middle + 1 :]
        if len(self._answered) < _HEAD_LIMIT:
            self._answered = (self._answered + data)[:_HEAD_LIMIT]
        self._client.sendall(data)
        self.passed += len(data)
        if rate:
            time.sleep(len(data) / rate)
        return True
