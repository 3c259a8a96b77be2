"""What a verified desired document asks of this device, given what it does and what it has handled.

The order of the questions is the order in which a document may be refused: order (the ratchet), then
expiry, then what it asks.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from datetime import datetime

from edgeflow_agent.core.machine import Work
from edgeflow_agent.wire import documents, signing
from edgeflow_agent.wire.documents import Action, DesiredState, Runtime


class Decision(enum.StrEnum):
    """What is to be done about a document, by name."""

    IGNORE_OLD_GENERATION = "old_generation"
    ALREADY_HANDLED = "already_handled"
    IN_PROGRESS = "in_progress"
    REJECT_EXPIRED = "expired"
    REJECT_CRASH_LOOP = "crash_loop"
    NOTHING_ASKED = "nothing_asked"
    ALREADY_SERVING = "already_serving"
    INSTALL = "install"
    HOLD = "hold"
    REMOVE = "remove"


WORK: dict[Decision, Work] = {
    Decision.ALREADY_SERVING: Work.ADOPT,
    Decision.INSTALL: Work.INSTALL,
    Decision.HOLD: Work.HOLD,
    Decision.REMOVE: Work.REMOVE,
}
REFUSALS = frozenset({Decision.IGNORE_OLD_GENERATION, Decision.REJECT_EXPIRED, Decision.REJECT_CRASH_LOOP})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Actual:
    """What the device does now. `handled` is the ratchet: the highest generation handled for good by each
    key; `active_*` name the deployment in work (key empty: none); `digest` is the bundle that is
    *committed* and serves (empty: none), `runtime` how it was asked to run. `fallen` are the bundles that
    were given up for killing the agent, each with the generation up to which no document brings it back."""

    handled: Mapping[str, int]
    active_key: str = ""
    active_generation: int = -1
    digest: str = ""
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    fallen: Mapping[str, int] = dataclasses.field(default_factory=dict)


def decide(desired: DesiredState, key: str, actual: Actual, now: datetime) -> Decision:
    """What to do about `desired`, signed by `key`, at the moment `now`."""
    if key == actual.active_key:
        if desired.generation == actual.active_generation:
            return Decision.IN_PROGRESS
        if desired.generation < actual.active_generation:
            return Decision.IGNORE_OLD_GENERATION
    handled = actual.handled.get(key, -1)
    if desired.generation < handled:
        return Decision.IGNORE_OLD_GENERATION
    if desired.generation == handled:
        return Decision.ALREADY_HANDLED
    if signing.is_expired(desired, now):
        return Decision.REJECT_EXPIRED
    if not desired.deployments:
        return Decision.NOTHING_ASKED
    deployment = desired.deployments[0]
    if deployment.action is Action.HOLD:
        return Decision.HOLD
    if deployment.action is Action.REMOVE:
        return Decision.REMOVE
    digest = documents.bundle_digest(deployment.files)
    if desired.generation <= actual.fallen.get(digest, -1):
        # The ratchet holds that back as well, but not against the same document under another key.
        return Decision.REJECT_CRASH_LOOP
    if digest == actual.digest and not needs_reload(actual.runtime, deployment.runtime):
        return Decision.ALREADY_SERVING
    return Decision.INSTALL


def needs_reload(served: Runtime, asked: Runtime) -> bool:
    """Whether a model that was loaded for `served` must be loaded again for `asked`. How many run at once is
    adopted; the limits on loading are those of the next load."""
    return (served.providers, served.threads) != (asked.providers, asked.threads)


def supersedes(decision: Decision) -> bool:
    """Whether a document with this decision ends the deployment that is in work."""
    return decision in WORK or decision is Decision.NOTHING_ASKED


def advanced(handled: Mapping[str, int], key: str, generation: int) -> dict[str, int]:
    """The ratchet after `generation` of `key` was handled for good: it never goes back."""
    return {**handled, key: max(generation, handled.get(key, -1))}
