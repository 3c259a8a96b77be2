"""Take in windows of telemetry, exactly once, as many as a fleet sends. What is returned is committed.

Nothing is held against the baseline here: that costs as much as judging, and is done when it is judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.wire import telemetry as wire
from edgeflow_agent.wire.documents import Stored
from edgeflow_agent.wire.telemetry import TelemetryResponse
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.dialects import inserting
from edgeflow_mlflow.domain import windows
from edgeflow_mlflow.domain.windows import Examined, Incoming, Known
from edgeflow_mlflow.services import refusals
from edgeflow_mlflow.services.state import State

MAX_WINDOWS = 500

_Windows: Any = models.Window.__table__
_Unjudged: Any = models.UnjudgedWindow.__table__


def take(state: State, target_id: str, packed: Sequence[bytes]) -> TelemetryResponse:
    """Store packed windows; answer with the ids of those that are stored, new or known, and with what will
    never be. Of what is stored, sketches may have been refused."""
    found: dict[int, Incoming] = {}
    refused: dict[int, str] = {}
    for number, data in enumerate(packed):
        try:
            window = wire.unpack_as(Incoming, data)
        except agent_errors.ContractError as error:
            refused[number] = f"unreadable: {error}"
            continue
        if problem := windows.storable(window):
            refused[number] = f"identity: {problem}"
        else:
            found[number] = window
    if packed:
        sent = [(window, packed[number]) for number, window in found.items()]
        state.database.change(
            target_id, lambda session: _store(state, session, target_id, sent, refused.values())
        )
    seqs: dict[str, set[int]] = defaultdict(set)
    for window in found.values():
        seqs[window.boot].add(window.seq)
    return TelemetryResponse(
        stored=tuple(Stored(boot=boot, seqs=tuple(sorted(ids))) for boot, ids in seqs.items()),
        refused={str(number): text for number, text in refused.items()},
    )


def _store(
    state: State,
    session: Session,
    target_id: str,
    sent: Sequence[tuple[Incoming, bytes]],
    refused: Iterable[str],
) -> None:
    now = state.now()
    if session.scalar(select(models.Target.id).where(models.Target.id == target_id)) is None:
        raise errors.NotFoundError(f"no target {target_id!r}")
    given = _given(session, target_id, {window.digest for window, _ in sent} - {""})
    texts = list(refused)
    merged = _merged(session, target_id, {window.boot for window, _ in sent})
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    kept: dict[tuple[str, int], Examined] = {}
    for window, data in sent:
        key = (window.boot, window.seq)
        if key in rows or any(first <= window.seq <= last for first, last in merged.get(window.boot, ())):
            continue
        kept[key] = examined = windows.examine(window, _known(window, given), now)
        rows[key] = _row(target_id, examined, data) | {"received_at": now}
    unjudged = []
    if rows:
        adding = inserting(session, _Windows).on_conflict_do_nothing(
            index_elements=["target_id", "boot", "seq"]
        )
        returned = adding.returning(_Windows.c.id, _Windows.c.boot, _Windows.c.seq)
        for identifier, boot, seq in session.connection().execute(returned, list(rows.values())):
            row, examined = rows[boot, seq], kept[boot, seq]
            if examined.refused:
                texts.append(examined.refused)
            elif examined.has_sketches:
                unjudged.append(
                    {
                        name: row[name]
                        for name in ("target_id", "digest", "baseline_sha256", "model_name", "model_version")
                    }
                    | {"window_id": identifier, "samples": examined.samples, "received_at": now}
                )
    if unjudged:
        session.connection().execute(insert(_Unjudged), unjudged)
    if texts:
        refusals.note(state, session, target_id, texts)


def _given(session: Session, target_id: str, digests: set[str]) -> dict[str, dict[str, Known]]:
    """Of each of these bundles the executions that gave it to the target, the newest last."""
    given: dict[str, dict[str, Known]] = defaultdict(dict)
    if not digests:
        return given
    rows = session.execute(
        select(
            models.Execution.id,
            models.Execution.deployment_id,
            models.Bundle.digest,
            models.Bundle.model_name,
            models.Bundle.model_version,
            models.Bundle.baseline_sha256,
        )
        .join(models.Rollout, models.Rollout.id == models.Execution.rollout_id)
        .join(models.Bundle, models.Bundle.id == models.Rollout.bundle_id)
        .where(models.Execution.target_id == target_id, models.Bundle.digest.in_(digests))
        .order_by(models.Execution.generation)
    )
    for execution, deployment, digest, model, version, baseline in rows:
        given[digest][execution] = Known(
            deployment=deployment, model=model, version=version, baseline=baseline
        )
    return given


def _known(window: Incoming, given: Mapping[str, Mapping[str, Known]]) -> Known | None:
    """The same bytes may be registered under several names; the execution says which it was."""
    executions = given.get(window.digest)
    if not executions:
        return None
    return executions.get(window.execution) or list(executions.values())[-1]


def _merged(session: Session, target_id: str, boots: set[str]) -> dict[str, list[tuple[int, int]]]:
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    merged = models.MergedWindows
    for boot, first, last in session.execute(
        select(merged.boot, merged.first_seq, merged.last_seq).where(
            merged.target_id == target_id, merged.boot.in_(boots)
        )
    ):
        ranges[boot].append((first, last))
    return ranges


def _row(target_id: str, examined: Examined, data: bytes) -> dict[str, Any]:
    window, known = examined.window, examined.known
    counted = msgspec.to_builtins(window.requests)
    return {
        "target_id": target_id,
        "boot": window.boot,
        "seq": window.seq,
        "span": "raw",
        "start_at": examined.start,
        "end_at": examined.end,
        "seconds": window.seconds,
        # Names come from what the server gave the device, never from what it says.
        "deployment_id": known.deployment if known else "",
        "model_name": known.model if known else "",
        "model_version": known.version if known else "",
        "digest": window.digest if known else "",
        "baseline_sha256": window.baseline if examined.has_sketches else "",
        "is_learned": window.is_learned,
        "requests": window.requests.total,
        "failed": window.requests.failed,
        "outcomes": counted,
        "latency_counts": list(window.latency.counts),
        "latency_sum_s": window.latency.sum_s,
        "observed": window.observed,
        "unobserved": window.unobserved,
        "swaps": window.swaps,
        "dropped": window.dropped,
        "pending": window.pending,
        "resources": windows.resources(msgspec.to_builtins(window.resources)),
        "payload": data if examined.has_sketches else None,
        "refused": examined.refused,
    }
