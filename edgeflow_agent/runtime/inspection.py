"""What can be said about a device from its own disk and its own agent, for `edgeflow-agent status`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflow_agent import errors
from edgeflow_agent.store.blobs import BlobStore
from edgeflow_agent.store.folder import read_agent_file
from edgeflow_agent.store.identity import IdentityFile
from edgeflow_agent.store.journal import Journal, highest_generation
from edgeflow_agent.store.releases import ReleaseStore


def inspect(state_dir: Path, ask: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    """Facts by name. `ask` fetches JSON from the agent, and gives None when it does not answer."""
    if not state_dir.is_dir():
        raise errors.StateError(
            f"there is no state folder {state_dir}; enrol with `edgeflow-agent enroll`, or name the folder "
            "with --state-dir"
        )
    identity = IdentityFile(state_dir).read()
    agent = read_agent_file(state_dir)
    model = ask(f"{agent.url}/model") if agent is not None else None
    running = agent is not None and (model is not None or ask(f"{agent.url}/health") is not None)
    facts: dict[str, Any] = {
        "target": identity.target if identity else "",
        "server": identity.server_url if identity else "",
        "running": running,
        "url": agent.url if agent is not None and running else "",
    }
    if model is None:
        model = _from_disk(state_dir)
    active = Journal(state_dir).record.active
    return facts | {
        "model": model.get("name", ""),
        "version": model.get("version", ""),
        "digest": model.get("digest", ""),
        "execution": model.get("execution", ""),
        "generation": highest_generation(Journal(state_dir).record.handled),
        "deploying": active.state.value if active is not None else "",
    }


def _from_disk(state_dir: Path) -> dict[str, Any]:
    if not (state_dir / "releases").is_dir():
        return {}
    store = ReleaseStore(state_dir, BlobStore(state_dir))
    try:
        name = store.current()
        manifest = store.manifest(name) if name else None
    except (errors.StateError, OSError):
        manifest = None
    if manifest is None:
        return {}
    model = manifest.deployment.model
    return {
        "name": model.name if model else "",
        "version": model.version if model else "",
        "digest": manifest.digest,
        "execution": manifest.deployment.execution,
    }
