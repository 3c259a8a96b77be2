"""Letting a whole fleet in, each device with the same token and an identity of its own."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Sequence

from edgeflow_agent import errors
from edgeflow_agent.version import VERSION
from edgeflow_agent.wire import documents, tokens
from edgeflow_mlflow.simulation import verifying
from edgeflow_mlflow.simulation.folder import FleetFolder, Kept
from edgeflow_mlflow.simulation.memory import Identity
from edgeflow_mlflow.simulation.web import RefusedError, Web

_AT_ONCE = 8


def enrol(
    web: Web,
    folder: FleetFolder,
    targets: Sequence[str],
    token: str,
    *,
    on_progress: Callable[[int], None],
    stopping: threading.Event,
) -> dict[str, Kept]:
    """Every device with its identity. Only those that have none are enrolled, and `token` is only needed for
    them. Raise with what to do next when one is not let in; those before it stay."""
    known = folder.load(targets)
    missing = [target for target in targets if target not in known]
    if not missing:
        return known
    if not token:
        raise errors.ConfigError(
            f"{len(missing)} devices are not enrolled yet: give --token with one from "
            f"`edgeflow tokens create --uses {len(missing)}`"
        )
    parsed = tokens.parse_token(token)
    keys = folder.enrolments(missing)

    def one(target: str) -> Identity:
        request = documents.EnrolRequest(
            token=token.strip(),
            target=target,
            idempotency_key=keys[target],
            agent_version=VERSION,
            platform="simulated",
            hostname=target,
        )
        return verifying.identity(web.enrol(request), target, parsed)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for begin in range(0, len(missing), 4 * _AT_ONCE):
            if stopping.is_set():
                break
            batch = [pool.submit(one, target) for target in missing[begin : begin + 4 * _AT_ONCE]]
            refused = None
            done = []
            for item in batch:
                try:
                    done.append(item.result())
                except RefusedError as error:
                    refused = refused or error
            folder.enrolled(done)
            on_progress(begin + len(done))
            if refused is not None:
                raise errors.TransferError(_advice(refused), status=refused.status) from refused
    return folder.load(targets)


def _advice(error: RefusedError) -> str:
    if error.status == 401:
        return (
            "the server refuses the token: it is unknown, used up or expired; make one with "
            "`edgeflow tokens create --uses N`"
        )
    if error.status == 409:
        return f"{error}. Or: another simulation made it; use its --state-dir, or another --prefix"
    return f"a device cannot be enrolled: {error}"
