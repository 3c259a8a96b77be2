"""Who a device is: enrolment tokens, credentials, rotation, revocation. Secrets are shown once."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from edgeflow_agent.wire import tokens, topics
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import selectors
from edgeflow_mlflow.services import desired, fleets
from edgeflow_mlflow.services.lineage import serving
from edgeflow_mlflow.services.state import State

MAX_USES = 100_000
MAX_TTL = timedelta(days=365)
_REPLAY = timedelta(minutes=10)
# `used_at` is a hint for people; writing it at every request would make each poll a write.
_USED_RESOLUTION = timedelta(minutes=1)
_NOT_ADMITTED = (
    "the enrolment token is wrong, used up, revoked or expired; create one with `edgeflow tokens create`"
)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A new token: the row, and its text, which is not kept."""

    row: models.EnrolmentToken
    text: str


def create_token(
    state: State,
    *,
    uses: int,
    ttl: timedelta,
    labels: dict[str, str],
    target: str | None,
    note: str,
    actor: str,
) -> Issued:
    """Make an enrolment token for `uses` devices, or for one given target."""
    if not 1 <= uses <= MAX_USES:
        raise errors.InvalidError(f"a token has 1 to {MAX_USES} uses, not {uses}")
    if not timedelta(0) < ttl <= MAX_TTL:
        raise errors.InvalidError("a token lives for more than 0 and at most 365 days")
    if target is not None and not topics.is_target_id(target):
        raise errors.InvalidError(f"{target!r} cannot name a target")
    now = state.now()
    token = tokens.Token(tokens.new_id(), secrets.token_hex(24), state.keyring.fleet)
    row = models.EnrolmentToken(
        id=token.id,
        secret_hash=tokens.hash_secret(token.secret),
        uses=uses,
        uses_left=uses,
        expires_at=now + ttl,
        labels=selectors.check_labels(labels),
        target_id=target,
        note=note,
        created_at=now,
        created_by=actor,
    )
    with state.database.write() as session:
        session.add(row)
    return Issued(row=row, text=tokens.format_token(token))


def revoke_token(state: State, token_id: str) -> None:
    """Make a token worthless; devices that it enrolled stay."""
    with state.database.write() as session:
        row = session.get(models.EnrolmentToken, token_id)
        if row is None:
            raise errors.NotFoundError(f"no enrolment token {token_id!r}; `edgeflow tokens list` shows them")
        row.revoked_at = row.revoked_at or state.now()


def enrol(state: State, token_text: str, target_id: str, idempotency_key: str) -> str:
    """Turn a token into a device credential, given back as text.

    The use is counted and the target made in one transaction, so a token with one use lets exactly one
    device in however many try at once. The same key within ten minutes gets the same answer.
    """
    now = state.now()
    token = tokens.parse_token(token_text)
    topics.check_target_id(target_id)
    if not 8 <= len(idempotency_key) <= 64:
        raise errors.InvalidError("idempotency_key is 8 to 64 characters that the device makes up once")
    with state.database.write() as session:
        row = session.get(models.EnrolmentToken, token.id)
        right = hmac.compare_digest(
            row.secret_hash if row is not None else "", tokens.hash_secret(token.secret)
        )
        if row is None or not right or row.revoked_at is not None:
            raise errors.UnauthenticatedError(_NOT_ADMITTED)
        known = session.scalars(
            select(models.Credential).where(
                models.Credential.token_id == row.id, models.Credential.idempotency_key == idempotency_key
            )
        ).first()
        if known is not None:
            if known.target_id != target_id or known.revoked_at or now - known.created_at > _REPLAY:
                raise errors.ConflictError("this idempotency_key was used before; begin the enrolment anew")
            return _text(state, known)
        used = session.execute(
            update(models.EnrolmentToken)
            .where(
                models.EnrolmentToken.id == row.id,
                models.EnrolmentToken.uses_left > 0,
                models.EnrolmentToken.expires_at > now,
            )
            .values(uses_left=models.EnrolmentToken.uses_left - 1)
        )
        if used.rowcount != 1:  # type: ignore[attr-defined]
            raise errors.UnauthenticatedError(_NOT_ADMITTED)
        _let_in(session, row, target_id, now)
        credential = _new_credential(state, session, target_id, token_id=row.id, key=idempotency_key)
        return _text(state, credential)


def _let_in(session: Session, token: models.EnrolmentToken, target_id: str, now: datetime) -> None:
    if token.target_id is not None and token.target_id != target_id:
        raise errors.ForbiddenError(f"this token enrols {token.target_id!r} only, not {target_id!r}")
    target = session.get(models.Target, target_id)
    if target is None:
        # A target that was deleted and comes again goes on above its history and its device's memory.
        last = session.scalar(
            select(func.max(models.Execution.generation)).where(models.Execution.target_id == target_id)
        )
        session.add(
            models.Target(
                id=target_id,
                labels=dict(token.labels),
                created_at=now,
                generation=last or 0,
                published_generation=last or 0,
            )
        )
        return
    if token.target_id is None:
        raise errors.ConflictError(
            f"target {target_id!r} exists already. If this is the same device, enrol it again with a token "
            f"bound to it: `edgeflow tokens create --target {target_id}`"
        )
    _revoke_all(session, target_id, now)


def _new_credential(
    state: State, session: Session, target_id: str, *, token_id: str | None = None, key: str | None = None
) -> models.Credential:
    identifier = tokens.new_id()
    row = models.Credential(
        id=identifier,
        target_id=target_id,
        secret_hash=tokens.hash_secret(state.keyring.derive_secret(identifier)),
        token_id=token_id,
        idempotency_key=key,
        created_at=state.now(),
    )
    session.add(row)
    return row


def _text(state: State, row: models.Credential) -> str:
    return tokens.format_credential(tokens.Credential(row.id, state.keyring.derive_secret(row.id)))


def authenticate(state: State, text: str) -> str | None:
    """The target that a credential belongs to, or None. The first use of a rotated credential ends the
    one before."""
    credential = tokens.parse_credential(text)
    if credential is None:
        return None
    now = state.now()
    with state.database.read() as session:
        row = session.get(models.Credential, credential.id)
    right = hmac.compare_digest(row.secret_hash if row else "", tokens.hash_secret(credential.secret))
    if row is None or not right or (row.revoked_at is not None and row.revoked_at <= now):
        return None
    if row.replaces is not None or row.used_at is None or now - row.used_at > _USED_RESOLUTION:
        state.database.change(row.target_id, lambda session: _note_use(session, row, now))
    return row.target_id


def _note_use(session: Session, row: models.Credential, now: datetime) -> None:
    values = {"used_at": now, "replaces": None}
    session.execute(update(models.Credential).where(models.Credential.id == row.id).values(values))
    if row.replaces is not None:
        session.execute(
            update(models.Credential).where(models.Credential.id == row.replaces).values(revoked_at=now)
        )


def rotate(state: State, target_id: str, current_text: str) -> str:
    """A second credential for the device. The one in use lives until the new one is first used, however
    long that takes: a device whose answer was lost, and that was away since, must not be locked out. One
    that was handed out before and never used is void."""
    current = tokens.parse_credential(current_text)
    assert current is not None  # it has just authenticated this request
    now = state.now()
    with state.database.write() as session:
        session.execute(
            update(models.Credential)
            .where(models.Credential.replaces == current.id, models.Credential.revoked_at.is_(None))
            .values(revoked_at=now)
        )
        row = _new_credential(state, session, target_id)
        row.replaces = current.id
        return _text(state, row)


def revoke(state: State, target_id: str) -> None:
    """Shut a device out: HTTP at once, its MQTT connection within seconds. Its rows stay."""
    with state.database.write() as session:
        if session.get(models.Target, target_id) is None:
            raise fleets.unknown_target(session, target_id)
        _revoke_all(session, target_id, state.now())


def forget(state: State, target_id: str) -> None:
    """Delete a target that no deployment holds, with its credentials. Its executions stay as history."""
    with state.database.write() as session:
        targets = desired.lock(session, [target_id])
        if not targets:
            raise fleets.unknown_target(session, target_id)
        for target in targets:
            if target.deployment_id is not None:
                holder = session.get_one(models.Deployment, target.deployment_id)
                raise errors.ConflictError(
                    f"target {target_id!r} belongs to deployment {holder.name!r}: delete or update that first"
                )
            desired.supersede(state, session, [target_id], "the target was deleted")
            session.execute(delete(models.Credential).where(models.Credential.target_id == target_id))
            session.delete(target)
            serving.end(session, target.id, state.now())


def _revoke_all(session: Session, target_id: str, now: datetime) -> None:
    session.execute(
        update(models.Credential)
        .where(
            models.Credential.target_id == target_id,
            or_(models.Credential.revoked_at.is_(None), models.Credential.revoked_at > now),
        )
        .values(revoked_at=now)
    )


def without_credential(state: State, target_ids: frozenset[str]) -> frozenset[str]:
    """Those of the given targets that hold no living credential: their connections are to be closed."""
    if not target_ids:
        return frozenset()
    with state.database.read() as session:
        living = session.scalars(
            select(models.Credential.target_id)
            .where(
                models.Credential.target_id.in_(target_ids),
                or_(models.Credential.revoked_at.is_(None), models.Credential.revoked_at > state.now()),
            )
            .distinct()
        )
        return target_ids - frozenset(living)
