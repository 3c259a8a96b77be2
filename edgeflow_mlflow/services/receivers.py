"""Receivers: who is told, how, and of what. What is secret about them is sealed, and never shown again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from edgeflow_agent import typed
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import addresses, matchers
from edgeflow_mlflow.domain.alert_groups import Pace
from edgeflow_mlflow.services import audit
from edgeflow_mlflow.services.state import State

MAX_RECEIVERS = 50
KINDS = ("webhook", "slack", "email", "alertmanager")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:]{2,45}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,62}")
_PORTS = {"none": 25, "starttls": 587, "tls": 465}
GROUP_BY = ("alertname",)


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What is sealed: the whole URL, what signs, and the password of the mail account."""

    url: str = ""
    secret: str = ""
    password: str = ""


@dataclass(frozen=True, kw_only=True)
class Mail:
    """How mails are sent. A port of 0 is the usual one."""

    host: str = ""
    port: int = 0
    tls: str = "starttls"
    username: str = ""
    sender: str = ""
    to: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A receiver as somebody wants it. A secret that is None stays what it was."""

    kind: str
    url: str | None = None
    secret: str | None = None
    password: str | None = None
    mail: Mail = field(default_factory=Mail)
    matchers: Sequence[str] = ()
    is_default: bool = False
    group_by: Sequence[str] = GROUP_BY
    pace: Pace = field(default_factory=Pace)


def put(state: State, name: str, wanted: Wanted, *, actor: str) -> None:
    """Make a receiver, or put it in place of the one of that name. What waits for it is tried at once."""
    if not _NAME.fullmatch(name):
        raise errors.InvalidError(f"{name[:80]!r} cannot name a receiver: use letters, digits, '_', '.', '-'")
    found = matchers.parse(wanted.matchers)
    for label in wanted.group_by:
        if not _LABEL.fullmatch(label):
            raise errors.InvalidError(f"{label[:80]!r} in group_by is no label")
    with state.database.write() as session:
        row = session.get(models.Receiver, name)
        before = Secrets()
        if row is not None and row.kind == wanted.kind:
            before = secrets(state, row) or Secrets()
        settings, kept, address = _checked(state, wanted, before, {} if row is None else row.settings)
        if row is None:
            count = session.scalar(select(func.count()).select_from(models.Receiver)) or 0
            if count >= MAX_RECEIVERS:
                raise errors.ConflictError(f"there are {MAX_RECEIVERS} receivers already; delete one first")
            row = models.Receiver(name=name)
            session.add(row)
        elif row.kind != wanted.kind:
            # What waits was written for the other kind.
            session.execute(delete_rows(models.Delivery).where(_waits(name)))
        row.kind, row.address, row.settings = wanted.kind, address, settings
        row.sealed = state.keyring.seal(msgspec.json.encode(kept), _place(name))
        row.matchers = [str(item) for item in found]
        row.is_default = wanted.is_default
        row.group_by = list(dict.fromkeys(wanted.group_by))
        row.group_wait_s = wanted.pace.wait.total_seconds()
        row.group_interval_s = wanted.pace.interval.total_seconds()
        row.repeat_interval_s = wanted.pace.repeat.total_seconds()
        row.send_resolved = wanted.pace.send_resolved
        row.updated_at, row.updated_by = state.now(), actor
        row.forwarded_at, row.forward_error = None, ""
        session.execute(update(models.Delivery).where(_waits(name)).values(next_at=state.now()))
        audit.note(state, session, actor=actor, action="receiver.put", subject=name)


def _waits(name: str) -> Any:
    return (models.Delivery.receiver == name) & (models.Delivery.state == "waiting")


def _checked(
    state: State, wanted: Wanted, before: Secrets, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], Secrets, str]:
    """Settings, secrets and the address to show; raise InvalidError that says what does not fit."""
    allow_private: bool = state.config["notifications.allow_private"]
    if wanted.kind not in KINDS:
        raise errors.InvalidError(f"a receiver is one of {', '.join(KINDS)}, not {wanted.kind[:80]!r}")
    if wanted.kind == "email":
        return _checked_mail(wanted, before, settings, allow_private=allow_private)
    if wanted.mail != Mail() or wanted.password is not None:
        raise errors.InvalidError(f"host, tls, to and the like are of e-mail: a {wanted.kind} has a url")
    if wanted.secret is not None and wanted.kind != "webhook":
        raise errors.InvalidError(f"only a webhook is signed, so a {wanted.kind} has no secret")
    url = before.url if wanted.url is None else wanted.url
    if not url:
        raise errors.InvalidError(f"a {wanted.kind} needs a url")
    place = addresses.place(url)
    addresses.check_host(place.host, allow_private=allow_private)
    if wanted.kind == "alertmanager" and not place.path.rstrip("/").endswith("/api/v2/alerts"):
        url = f"{url.rstrip('/')}/api/v2/alerts"
    secret = before.secret if wanted.secret is None else wanted.secret
    return {}, Secrets(url=url, secret=secret), place.shown


def _checked_mail(
    wanted: Wanted, before: Secrets, settings: Mapping[str, Any], *, allow_private: bool
) -> tuple[dict[str, Any], Secrets, str]:
    mail = wanted.mail
    if wanted.url is not None or wanted.secret is not None:
        raise errors.InvalidError("an email receiver has host, sender and to, but no url and no secret")
    if not _HOST.fullmatch(mail.host):
        raise errors.InvalidError("an email receiver needs host, the name of a mail server")
    addresses.check_host(mail.host, allow_private=allow_private)
    if mail.tls not in _PORTS:
        raise errors.InvalidError(f"tls is one of starttls, tls, none, not {mail.tls[:80]!r}")
    if not mail.to or len(mail.to) > 50:
        raise errors.InvalidError("an email receiver needs 1 to 50 addresses in to")
    for address in (mail.sender, *mail.to):
        if not _MAIL.fullmatch(address) or len(address) > 254:
            raise errors.InvalidError(f"{address[:80]!r} is no mail address")
    is_same = settings.get("host") == mail.host and settings.get("username") == mail.username
    # A password goes to nobody whom it was not given for.
    password = (before.password if is_same else "") if wanted.password is None else wanted.password
    if mail.username and not password:
        raise errors.InvalidError("a username needs its password")
    if mail.username and mail.tls == "none":
        raise errors.InvalidError("a password is not sent without TLS: set tls to starttls or tls")
    port = mail.port or _PORTS[mail.tls]
    kept = {
        "host": mail.host,
        "port": port,
        "tls": mail.tls,
        "username": mail.username,
        "sender": mail.sender,
        "to": list(mail.to),
    }
    return kept, Secrets(password=password if mail.username else ""), f"smtp://{mail.host}:{port}"


def delete(state: State, name: str, *, actor: str) -> None:
    """Forget a receiver, and what waits for it."""
    with state.database.write() as session:
        session.delete(get(session, name))
        session.execute(delete_rows(models.AlertGroup).where(models.AlertGroup.receiver == name))
        session.execute(delete_rows(models.Delivery).where(models.Delivery.receiver == name))
        audit.note(state, session, actor=actor, action="receiver.delete", subject=name)


def get(session: Session, name: str) -> models.Receiver:
    """A receiver, or NotFoundError that names the nearest."""
    row = session.get(models.Receiver, name)
    if row is None:
        near = difflib.get_close_matches(name, session.scalars(select(models.Receiver.name)).all(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`edgeflow alerts receivers` shows them"
        raise errors.NotFoundError(f"no receiver {name!r}; {hint}")
    return row


def _place(name: str) -> str:
    return f"receiver/{name}"


def secrets(state: State, row: models.Receiver) -> Secrets | None:
    """What is sealed; None when the keys of this server are others by now."""
    content = state.keyring.unseal(row.sealed, _place(row.name))
    return None if content is None else typed.read(Secrets, content)


def pace(row: models.Receiver) -> Pace:
    """How often it is told."""
    return Pace(
        wait=timedelta(seconds=row.group_wait_s),
        interval=timedelta(seconds=row.group_interval_s),
        repeat=timedelta(seconds=row.repeat_interval_s),
        send_resolved=row.send_resolved,
    )


class Routes:
    """Which receivers get an alert: all whose matchers it fulfils, and if there is none the default ones."""

    def __init__(self, rows: Sequence[models.Receiver]) -> None:
        self._rows = [(row, matchers.parse(row.matchers)) for row in rows]

    def of(self, labels: Mapping[str, str]) -> list[models.Receiver]:
        """Those that an alert with these labels goes to."""
        found = [row for row, wanted in self._rows if matchers.match_all(wanted, labels)]
        named = [row for row in found if not row.is_default]
        return named or found
