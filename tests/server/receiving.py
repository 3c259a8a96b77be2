"""A real receiver of notifications in the process of a test: over HTTP, and over SMTP."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def delivery_id(self) -> str:
        return self.headers["x-edgeflow-delivery-id"]


@dataclass
class Receiver:
    """Answers with the next of `answers` (status and headers), then with 200."""

    server: ThreadingHTTPServer
    received: list[Received] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def statuses(self) -> list[str]:
        return [item.json["status"] for item in self.received]


@contextlib.contextmanager
def http_receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            words = {name.lower(): value for name, value in self.headers.items()}
            found.received.append(Received(self.path, words, body))
            status, headers = found.answers.pop(0) if found.answers else (200, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def dripping_receiver() -> Iterator[str]:
    """Answers a byte now and then, for ever: no single read ever runs into a timeout."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            link, _ = listener.accept()
            link.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not over.is_set():
                link.sendall(b"x")
                time.sleep(0.05)

    threading.Thread(target=drip, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    listener.close()


@dataclass
class Mailbox:
    """What a mail server took: the words of the dialogue, and the mails."""

    port: int
    words: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)


@contextlib.contextmanager
def mail_server(tls: ssl.SSLContext | None = None, refuses: str = "") -> Iterator[Mailbox]:
    """Offers STARTTLS and a login when it has a certificate; refuses one recipient when asked to."""
    listener = socket.create_server(("127.0.0.1", 0))
    box = Mailbox(listener.getsockname()[1])

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with contextlib.suppress(OSError):
                    _talk(link, box, tls, refuses)

    threading.Thread(target=serve, daemon=True).start()
    yield box
    listener.close()


def _talk(link: socket.socket, box: Mailbox, tls: ssl.SSLContext | None, refuses: str) -> None:
    link.settimeout(10)
    lines = link.makefile("rb")
    link.sendall(b"220 ready\r\n")
    is_secure = False
    while line := lines.readline():
        word = line.decode().strip()
        box.words.append(word)
        verb = word.split(" ")[0].upper()
        if verb == "EHLO":
            offers = ["STARTTLS"] if tls and not is_secure else ["AUTH PLAIN"] if is_secure else []
            said = ["here", *offers]
            link.sendall(
                b"".join(f"250{'-' if item != said[-1] else ' '}{item}\r\n".encode() for item in said)
            )
        elif verb == "STARTTLS" and tls is not None:
            link.sendall(b"220 go\r\n")
            link = tls.wrap_socket(link, server_side=True)
            lines = link.makefile("rb")
            is_secure = True
        elif verb == "AUTH":
            link.sendall(b"235 welcome\r\n")
        elif verb == "RCPT" and refuses and refuses in word:
            link.sendall(b"550 nobody of that name\r\n")
        elif verb == "DATA":
            link.sendall(b"354 say\r\n")
            mail = []
            while (part := lines.readline()) != b".\r\n":
                mail.append(part.decode())
            box.mails.append("".join(mail))
            link.sendall(b"250 taken\r\n")
        elif verb == "QUIT":
            link.sendall(b"221 bye\r\n")
            return
        else:
            link.sendall(b"250 ok\r\n")
