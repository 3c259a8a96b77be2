"""How the last lives of the agent's process ended, and which releases were given up for that."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgeflow_agent import typed
from edgeflow_agent.core.crash_loop import Life
from edgeflow_agent.store import durable
from edgeflow_agent.wire.documents import DesiredDeployment

logger = logging.getLogger(__name__)

_REMEMBERED = 16
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class Fall(msgspec.Struct, frozen=True, kw_only=True):
    """A release that was given up for `back_to`. `done` says that the pointers are set and it is reported."""

    release: str
    back_to: str
    digest: str
    deployment: DesiredDeployment
    generation: int
    message: str
    done: bool = False


class _Lives(msgspec.Struct, frozen=True, kw_only=True):
    lives: tuple[Life, ...] = ()


class _Falls(msgspec.Struct, frozen=True, kw_only=True):
    falls: tuple[Fall, ...] = ()


class LivesFile:
    """Two small files: `lives.json` changes with every start and stop, `falls.json` almost never. One that
    cannot be read says nothing."""

    def __init__(self, state_dir: Path) -> None:
        self._lives = state_dir / "lives.json"
        self._falls = state_dir / "falls.json"
        self.lives = _read(self._lives, _Lives).lives
        self.falls = _read(self._falls, _Falls).falls

    def write_lives(self, lives: tuple[Life, ...]) -> None:
        """Keep them; raise OSError when that cannot be."""
        durable.replace(self._lives, msgspec.json.encode(_Lives(lives=lives)), label="lives")
        self.lives = lives

    def forget_lives(self) -> None:
        """What has room to be removed on a full disk: without it no start is taken for one after a death."""
        with contextlib.suppress(OSError):
            self._lives.unlink(missing_ok=True)
        self.lives = ()

    def write_fall(self, fall: Fall) -> None:
        """Keep it, in the place of what was known of the same release; raise OSError when that cannot be."""
        others = [item for item in self.falls if item.release != fall.release]
        falls = (*others, fall)[-_REMEMBERED:]
        durable.replace(self._falls, msgspec.json.encode(_Falls(falls=falls)), label="fall")
        self.falls = falls

    def fallen(self) -> dict[str, int]:
        """Digest to generation: up to that one, no document brings the model back."""
        found: dict[str, int] = {}
        for item in self.falls:
            found[item.digest] = max(item.generation, found.get(item.digest, -1))
        return found


def _read(path: Path, kind: type[_Kind]) -> _Kind:
    empty: Any = kind()
    try:
        return typed.read(kind, durable.patiently(path.read_bytes))
    except FileNotFoundError:
        return empty  # type: ignore[no-any-return]
    except (OSError, msgspec.MsgspecError) as error:
        logger.error("%s cannot be read (%s) and is left out", path, error)
        return empty  # type: ignore[no-any-return]
