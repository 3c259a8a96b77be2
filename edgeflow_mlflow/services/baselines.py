"""Baselines by their SHA-256: those that came with a model, and those that devices have learned."""

from __future__ import annotations

import logging
import threading
import zlib
from collections import OrderedDict

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.drift import baseline_file
from edgeflow_agent.drift.baseline import Baseline
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import inserting
from edgeflow_mlflow.services import refusals
from edgeflow_mlflow.services.state import State

logger = logging.getLogger(__name__)

MAX_SENT_BYTES = 700 * 1024
_MAX_LEARNED_BYTES = 16 * 2**20
_PER_TARGET = 5
_MOST_PARSED = 32

# A name is the content's hash, so what was parsed once stays right, whichever state asks.
_parsed: OrderedDict[str, Baseline] = OrderedDict()
_lock = threading.Lock()


def find(state: State, session: Session, sha256: str) -> Baseline | None:
    """The baseline of that name, or None when this server has none that can be read."""
    with _lock:
        if sha256 in _parsed:
            _parsed.move_to_end(sha256)
            return _parsed[sha256]
    content = _content(state, session, sha256)
    if content is None:
        return None
    try:
        baseline = baseline_file.parse(content)
    except agent_errors.ContractError as error:
        logger.warning("the baseline %s cannot be read: %s", sha256, error)
        return None
    if baseline.digest != sha256:
        return None
    with _lock:
        _parsed[sha256] = baseline
        while len(_parsed) > _MOST_PARSED:
            _parsed.popitem(last=False)
    return baseline


def _content(state: State, session: Session, sha256: str) -> bytes | None:
    try:
        path = state.blobs.find(sha256)
    except errors.NotFoundError:
        return None
    if path is not None and path.stat().st_size <= baseline_file.MAX_BYTES:
        return path.read_bytes()
    packed = session.scalar(
        select(models.LearnedBaseline.content).where(models.LearnedBaseline.sha256 == sha256).limit(1)
    )
    return None if packed is None else _inflate(packed)


def learn(state: State, target_id: str, digest: str, sent: bytes) -> str:
    """Keep a baseline that a device has made for a bundle of its own, as it is or in zlib; its SHA-256. The
    oldest go."""
    if len(sent) > MAX_SENT_BYTES:
        raise errors.TooLargeError(
            f"a learned baseline of {len(sent)} bytes is over {MAX_SENT_BYTES}: watch fewer features"
        )
    try:
        content = _inflate(sent)
        baseline = baseline_file.parse(content)
    except agent_errors.ContractError as error:
        with state.database.write() as session:
            refusals.note(state, session, target_id, [f"learned_baseline: {error}"])
        raise

    def keep(session: Session) -> None:
        if not _was_given(session, target_id, digest):
            raise errors.InvalidError("digest names no bundle that this device was ever given")
        adding = inserting(session, models.LearnedBaseline.__table__).values(
            target_id=target_id,
            sha256=baseline.digest,
            digest=digest,
            content=zlib.compress(content),
            created_at=state.now(),
        )
        session.execute(adding.on_conflict_do_nothing(index_elements=["target_id", "sha256"]))
        mine = models.LearnedBaseline.target_id == target_id
        newest = (
            select(models.LearnedBaseline.sha256)
            .where(mine)
            .order_by(
                (models.LearnedBaseline.sha256 == baseline.digest).desc(),
                models.LearnedBaseline.created_at.desc(),
            )
            .limit(_PER_TARGET)
        )
        kept = session.scalars(newest).all()
        session.execute(
            delete(models.LearnedBaseline).where(mine, models.LearnedBaseline.sha256.not_in(kept))
        )

    state.database.change(target_id, keep)
    return baseline.digest


def _was_given(session: Session, target_id: str, digest: str) -> bool:
    given = (
        select(models.Execution.id)
        .join(models.Rollout, models.Rollout.id == models.Execution.rollout_id)
        .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
        .where(models.Execution.target_id == target_id, models.Bundle.digest == digest)
    )
    return session.scalars(given.limit(1)).first() is not None


def _inflate(packed: bytes) -> bytes:
    if packed[:1] == b"{":
        return packed
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(packed, _MAX_LEARNED_BYTES)
    except zlib.error as error:
        raise agent_errors.ContractError(f"the baseline cannot be unpacked: {error}") from error
    if inflater.unconsumed_tail or not inflater.eof or inflater.unused_data:
        raise agent_errors.ContractError(
            f"the baseline is cut off, or over {_MAX_LEARNED_BYTES} bytes unpacked"
        )
    return content
