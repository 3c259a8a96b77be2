"""How notifications leave: over HTTP and SMTP, to addresses that were looked at, and never for ever."""

from __future__ import annotations

import base64
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeflow_mlflow.domain import addresses, notifications
from edgeflow_mlflow.domain.alert_groups import Reason
from edgeflow_mlflow.domain.notifications import Notification, Told
from edgeflow_mlflow.services import dialling, mailing, posting
from edgeflow_mlflow.services.posting import Reply
from tests.server.receiving import Mailbox, dripping_receiver, http_receiver, mail_server

CONTENT = {"subject": "Edgeflow [FIRING] TargetOffline", "text": "warning: robot-07 is away\n.\nend\n"}


# ---- addresses


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:4700::1111", True, True),
        ("127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("100.64.0.1", False, True),
        ("192.168.1.1", False, True),
        ("::1", False, True),
        ("fd00::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("64:ff9b::a00:1", False, True),
        ("2002:7f00:1::", False, True),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("224.0.0.1", False, False),
        ("nonsense", False, False),
    ],
)
def test_addresses(address: str, public: bool, private: bool) -> None:
    assert (not addresses.refusal(address, allow_private=False)) is public
    assert (not addresses.refusal(address, allow_private=True)) is private


def test_what_was_looked_at_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when it is looked at and private a moment later is asked for once."""
    asked: list[str] = []
    connected: list[Any] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(_self: socket.socket, address: Any) -> None:
        connected.append(address)
        raise OSError("far away")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    reply = posting.post("http://rebinding.example/x", b"{}", {}, allow_private=False)
    assert (reply.delivered, asked, connected) == (False, ["rebinding.example"], [("93.184.216.34", 80)])
    reply = posting.post("http://rebinding.example/x", b"{}", {}, allow_private=False)
    assert "private address" in reply.text
    assert len(connected) == 1


def test_a_private_address_is_refused_before_anything_is_sent() -> None:
    with http_receiver() as receiver:
        reply = posting.post(f"{receiver.url}/x", b"{}", {}, allow_private=False)
        assert reply == Reply(delivered=False, text=reply.text)
        assert "allow_private" in reply.text
        assert receiver.received == []


def test_a_receiver_that_answers_a_byte_now_and_then_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "TIMEOUT_S", 0.4)
    with dripping_receiver() as url:
        began = time.monotonic()
        reply = posting.post(url, b"{}", {}, allow_private=True)
        assert time.monotonic() - began < 5
    assert not reply.delivered


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        reply = posting.post(
            f"http://127.0.0.1:{probe.getsockname()[1]}/secret", b"{}", {}, allow_private=True
        )
    assert "does not answer" in reply.text
    assert "secret" not in reply.text


# ---- TLS and mail


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """The server's side of TLS; the client's side trusts it."""
    monkeypatch.setattr(dialling, "context", lambda: ssl.create_default_context(cafile=certificate))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    yield server


def settings(box: Mailbox, **change: Any) -> dict[str, Any]:
    usual = {
        "host": "localhost", "port": box.port, "tls": "none", "username": "",
        "sender": "fleet@example.org", "to": ["ada@example.org", "bob@example.org"],
    }  # fmt: skip
    return {**usual, **change}


def test_a_mail_goes_out_with_starttls_and_a_login(trusted: ssl.SSLContext) -> None:
    with mail_server(trusted) as box:
        wanted = settings(box, tls="starttls", username="ada")
        reply = mailing.send(wanted, "pass", "d1", CONTENT, allow_private=True)
    assert reply == Reply(delivered=True, status=250)
    (mail,) = box.mails
    assert "Subject: Edgeflow [FIRING] TargetOffline" in mail
    assert "Message-ID: <d1@edgeflow>" in mail
    assert "robot-07 is away" in mail
    assert box.words.index("STARTTLS") < box.words.index(
        "AUTH PLAIN " + base64.b64encode(b"\0ada\0pass").decode()
    )


def test_a_certificate_of_somebody_else_is_refused(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "context", ssl.create_default_context)
    with mail_server(trusted) as box:
        wanted = settings(box, tls="starttls", username="ada")
        reply = mailing.send(wanted, "pass", "d1", CONTENT, allow_private=True)
    assert not reply.delivered
    assert "certificate" in reply.text.lower()
    assert not any(word.startswith("AUTH") for word in box.words)


def test_a_server_without_starttls_gets_no_password() -> None:
    with mail_server() as box:
        wanted = settings(box, tls="starttls", username="ada")
        assert not mailing.send(wanted, "pass", "d1", CONTENT, allow_private=True).delivered
    assert not any(word.startswith(("AUTH", "MAIL")) for word in box.words)


def test_a_recipient_that_is_refused_is_named() -> None:
    with mail_server(refuses="bob@") as box:
        reply = mailing.send(settings(box), "", "d1", CONTENT, allow_private=True)
        assert (reply.delivered, reply.text) == (True, "not taken for bob@example.org")
        alone = mailing.send(settings(box, to=["bob@example.org"]), "", "d2", CONTENT, allow_private=True)
        assert not alone.delivered
        private = mailing.send(settings(box), "", "d3", CONTENT, allow_private=False)
        assert "allow_private" in private.text
    assert len(box.mails) == 1


# ---- what is sent


def told(count: int, *, ended: bool = False, **labels: str) -> Notification:
    now = datetime(2026, 3, 3, 12, tzinfo=UTC)
    return Notification(
        receiver="ops",
        reason=Reason.FIRED,
        group_labels={"alertname": "Drift"},
        alerts=[
            Told(
                labels={"alertname": "Drift", "severity": "warning", "target": f"r{number}", **labels},
                annotations={"summary": f"<r{number}> & co", "same": "x"},
                fingerprint=f"{number:016x}",
                starts_at=now,
                ends_at=now if ended else None,
            )
            for number in range(count)
        ],
        external_url="https://fleet.example",
    )


def test_what_is_too_much_is_cut_and_counted() -> None:
    found = notifications.webhook(told(60))
    assert (len(found["alerts"]), found["truncatedAlerts"]) == (50, 10)
    assert found["commonLabels"] == {"alertname": "Drift", "severity": "warning"}
    assert found["commonAnnotations"] == {"same": "x"}
    assert notifications.slack(told(60))["text"].count("\n") == 52


def test_a_chat_reads_no_markup_out_of_names() -> None:
    text = notifications.slack(told(1))["text"]
    assert text.startswith("*[FIRING] Drift*\n• warning: &lt;r0&gt; &amp; co")
    assert notifications.slack(told(1, ended=True))["text"].startswith("*[RESOLVED] Drift*")


def test_a_mail_has_one_line_of_subject() -> None:
    notification = Notification(
        receiver="ops", reason=Reason.REPEATED, group_labels={"site": "a\r\nBcc: x"}, alerts=told(1).alerts
    )
    assert notifications.mail(notification)["subject"] == "Edgeflow [FIRING] a Bcc: x, again"
