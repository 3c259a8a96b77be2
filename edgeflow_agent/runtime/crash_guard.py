"""Going back to the release before, without a server, when the one that serves keeps killing the agent.

Decided at the start, before any model is loaded. The verdict is on disk before anything follows from it.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.core import crash_loop
from edgeflow_agent.core.crash_loop import Moment
from edgeflow_agent.runtime.reporting import Reporter
from edgeflow_agent.store import crashpoints
from edgeflow_agent.store.journal import Entry
from edgeflow_agent.store.lives import Fall, LivesFile
from edgeflow_agent.store.releases import ReleaseStore
from edgeflow_agent.wire.states import State

logger = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class CrashGuard:
    """`begin` before the first model is loaded, `end` as soon as a stop is asked for."""

    def __init__(self, file: LivesFile, releases: ReleaseStore, reporter: Reporter) -> None:
        self._file = file
        self._releases = releases
        self._reporter = reporter

    def fallen(self) -> dict[str, int]:
        """Digest to generation of what was given up: no document up to that one brings it back."""
        return self._file.fallen()

    def begin(self, active: Entry | None) -> None:
        """Note this start; go back when the last ones were too many. `active` is the deployment in work."""
        try:
            self._begin(active)
        except OSError as error:
            # A full disk must not keep a device from serving what it has.
            logger.error("how the agent ended last cannot be kept: %s", error)

    def _begin(self, active: Entry | None) -> None:
        current, now = self._releases.current(), _now()
        # The model that is being loaded or on trial may be to blame: its own deployment judges that.
        blameless = active is not None and (active.activated or active.state is State.LOADING)
        self._file.write_lives(crash_loop.begun(self._file.lives, now, "" if blameless else current))
        for fall in self._file.falls:
            if not fall.done:
                self._carry_out(fall)
        if crash_loop.is_looping(self._file.lives, now, current):
            self._give_up(current)

    def end(self) -> None:
        """The agent was asked to stop: however long that takes, it is no death."""
        try:
            self._file.write_lives(crash_loop.ended(self._file.lives))
        except OSError as error:
            logger.error("that the agent stops cannot be kept: %s", error)
            self._file.forget_lives()

    def _give_up(self, release: str) -> None:
        back_to = self._releases.previous()
        problem = ""
        if not back_to or back_to == release:
            problem = "no release before it is there"
        elif any(item.release == back_to for item in self._file.falls):
            problem = "the release before it was given up as well"
        else:
            try:
                manifest, other = self._releases.manifest(release), self._releases.verify(back_to)
            except errors.StateError as error:
                problem = str(error)
        if problem:
            logger.error("release %s keeps killing the agent, but goes on serving: %s", release, problem)
            return
        model = other.deployment.model
        minutes = crash_loop.WITHIN_S / 60
        fall = Fall(
            release=release,
            back_to=back_to,
            digest=manifest.digest,
            deployment=manifest.deployment,
            generation=manifest.generation,
            message=f"the agent died {crash_loop.DEATHS} times within {minutes:g} minutes while this model "
            f"served; version {model.version if model else '?'} serves again",
        )
        self._file.write_fall(fall)
        self._carry_out(fall)

    def _carry_out(self, fall: Fall) -> None:
        if self._releases.current() in (fall.release, fall.back_to):
            self._releases.go_back(current=fall.back_to, previous=fall.release)
            logger.error("release %s is given up: %s", fall.release, fall.message)
            self._reporter.fell_back(fall)
            crashpoints.reach("fall.reported")
        # Else another deployment has taken over since the verdict, which the disk had not let through.
        self._file.write_fall(msgspec.structs.replace(fall, done=True))


def _now() -> Moment:
    try:
        machine = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        machine = ""
    return Moment(machine=machine, seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
