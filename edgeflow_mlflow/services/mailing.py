"""Send one notification as a mail: with TLS, to a checked address."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

from edgeflow_mlflow.services import dialling
from edgeflow_mlflow.services.posting import Reply

_OVERALL_S = 3 * dialling.TIMEOUT_S


class _Server(smtplib.SMTP):
    """A mail server behind a connection that is there already."""

    def __init__(self, link: socket.socket, host: str) -> None:
        self._link = link
        super().__init__(local_hostname=socket.gethostname() or "edgeflow", timeout=dialling.TIMEOUT_S)
        self._host = host  # whose certificate STARTTLS asks for

    def _get_socket(self, _host: str, _port: int, _timeout: float) -> socket.socket:
        return self._link


def send(
    settings: Mapping[str, Any],
    password: str,
    delivery_id: str,
    content: Mapping[str, str],
    *,
    allow_private: bool,
) -> Reply:
    """Send it to every recipient; who is refused is named."""
    host, port = str(settings["host"]), int(settings["port"])
    where = f"{host}:{port}"
    message = _message(settings, delivery_id, content)
    link: socket.socket | None = None
    server: _Server | None = None
    try:
        link = dialling.dial(host, port, allow_private=allow_private)
        with dialling.within(_OVERALL_S, lambda: link if server is None else server.sock):
            if settings["tls"] == "tls":
                link = dialling.secure(link, host)
            server = _Server(link, host)
            server.connect(host, port)
            if settings["tls"] == "starttls":
                server.starttls(context=dialling.context())
            if settings.get("username"):
                server.login(str(settings["username"]), password)
            refused = server.send_message(message)
    except dialling.RefusedError as error:
        return Reply(delivered=False, text=str(error))
    except smtplib.SMTPResponseException as error:
        said = (
            error.smtp_error.decode(errors="replace")
            if isinstance(error.smtp_error, bytes)
            else error.smtp_error
        )
        return Reply(
            delivered=False, status=error.smtp_code, text=f"{where} said {error.smtp_code}: {said}"[:300]
        )
    except (OSError, smtplib.SMTPException, ValueError) as error:
        return Reply(delivered=False, text=f"{where}: {error or type(error).__name__}"[:300])
    finally:
        if server is not None:
            server.close()
        elif link is not None:
            link.close()
    told = f"not taken for {', '.join(sorted(refused))}" if refused else ""
    return Reply(delivered=True, status=250, text=told)


def _message(settings: Mapping[str, Any], delivery_id: str, content: Mapping[str, str]) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = content["subject"]
    message["From"] = settings["sender"]
    message["To"] = ", ".join(settings["to"])
    message["Date"] = formatdate()
    # The same at every try: mail systems drop a repeat by it.
    message["Message-ID"] = f"<{delivery_id}@edgeflow>"
    message["X-Edgeflow-Delivery-Id"] = delivery_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(content["text"])
    return message
