"""Playing all devices: carries out what they ask for, and tells them what came of it."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import logging
import resource
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from edgeflow_agent import errors
from edgeflow_agent.wire.topics import Kind
from edgeflow_mlflow.simulation import outputs, picture
from edgeflow_mlflow.simulation.device import Device
from edgeflow_mlflow.simulation.folder import FleetFolder, Kept
from edgeflow_mlflow.simulation.links import Link
from edgeflow_mlflow.simulation.loop import Loop
from edgeflow_mlflow.simulation.memory import Character
from edgeflow_mlflow.simulation.web import RefusedError, Web

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WEB_THREADS = 8
_DIAL_THREADS = 8
_FILE_THREADS = 4
# So many connections wait for the broker's answer at a time. More would only wait longer: a device that gives
# up and comes again costs the broker twice.
_DIALS_AT_ONCE = 50
# How long the goodbyes of a clean end may take, all together.
_GOODBYE_S = 10.0


class _Player:
    """One device, its connection, and the number of its timer."""

    def __init__(self, fleet: Fleet, number: int, device: Device) -> None:
        self.device = device
        self.number = number
        self.broker = ""  # where it waits to be connected to
        self._fleet = fleet
        self.link = Link(
            fleet.loop,
            fleet.dialling,
            device.identity.target,
            on_up=self._up,
            on_end=self._end,
            on_message=self._message,
        )

    def _up(self) -> None:
        self._fleet.dialled(self)
        now = self._fleet.loop.now()
        self.device.connected(now)
        self._fleet.carry_out(self, self.device.tick(now))

    def _end(self, failed: bool) -> None:
        self._fleet.dialled(self)
        now = self._fleet.loop.now()
        (self.device.dial_failed if failed else self.device.disconnected)(now)
        self._fleet.carry_out(self, [])

    def _message(self, kind: Kind, payload: bytes) -> None:
        self._fleet.received += 1
        self._fleet.carry_out(self, self.device.message(kind, payload, self._fleet.loop.now()))


class Fleet:
    """From `run` to `stop`; only `stop` may be called from elsewhere, also from a signal handler."""

    def __init__(
        self,
        web: Web,
        folder: FleetFolder,
        kept: Iterable[Kept],
        character: Character,
        *,
        on_second: Callable[[picture.Picture], None],
    ) -> None:
        self.loop = Loop()
        self.dialling = concurrent.futures.ThreadPoolExecutor(_DIAL_THREADS, "simulated-dial")
        self._asking = concurrent.futures.ThreadPoolExecutor(_WEB_THREADS, "simulated-http")
        self._fetching = concurrent.futures.ThreadPoolExecutor(_FILE_THREADS, "simulated-files")
        self._web = web
        self._folder = folder
        self._on_second = on_second
        self._began = time.monotonic()
        self._stopping = False
        self._to_dial: collections.deque[_Player] = collections.deque()
        self._dials: set[int] = set()
        self.sent = self.received = self._requests = self._downloaded = 0
        born = self.loop.now()
        boot = secrets.token_hex(16)  # with the target it is as good as one for each
        self._players = [
            _Player(self, number, Device(item.identity, item.memory, character, boot=boot, born=born))
            for number, item in enumerate(kept)
        ]

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True
        self.loop.wake()

    def run(self, duration_s: float = 0.0) -> picture.Picture:
        """Play until told to stop, or for so long; what there was to see at the end."""
        try:
            for player in self._players:
                self.loop.at(player.number, 0.0)
            second = time.monotonic()
            while not self._stopping:
                self.loop.turn(self._fire)
                if (now := time.monotonic()) - second >= 1.0:
                    second = now
                    self._each_second()
                    if duration_s and now - self._began >= duration_s:
                        break
            last = self.look()
            self._say_goodbye()
            return last
        finally:
            self._keep()
            for pool in (self.dialling, self._asking, self._fetching):
                pool.shutdown(wait=False, cancel_futures=True)
            self.loop.close()

    def look(self) -> picture.Picture:
        """How it stands."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return picture.look(
            (player.device for player in self._players),
            seconds=time.monotonic() - self._began,
            sent=self.sent,
            received=self.received,
            requests=self._requests,
            downloaded_bytes=self._downloaded,
            cpu_s=usage.ru_utime + usage.ru_stime,
            rss_mb=_resident_mb(),
        )

    def _each_second(self) -> None:
        for player in self._players:
            player.link.tend()
        self._keep()
        self._on_second(self.look())

    def _keep(self) -> None:
        changed = [player.device for player in self._players if player.device.changed]
        if changed:
            self._folder.keep(Kept(device.identity, device.keep()) for device in changed)

    def _fire(self, number: int) -> None:
        player = self._players[number]
        self.carry_out(player, player.device.tick(self.loop.now()))

    # What devices ask for.

    def carry_out(self, player: _Player, wanted: list[outputs.Output]) -> None:
        """Do it, and set the device's timer. At the end nothing new is begun."""
        if self._stopping:
            return
        device, credential = player.device, player.device.identity.credential
        for item in wanted:
            match item:
                case outputs.Publish():
                    self.sent += 1
                    player.link.publish(item.kind, item.payload)
                case outputs.Dial():
                    player.broker = item.url
                    self._to_dial.append(player)
                    self._dial()
                case outputs.HangUp():
                    player.broker = ""
                    player.link.hang_up()
                    self.dialled(player)
                case outputs.Poll():
                    self._ask(
                        player,
                        functools.partial(self._web.poll, credential, item),
                        device.polled,
                        device.poll_failed,
                    )
                case outputs.Post():
                    self._ask(
                        player,
                        functools.partial(self._web.post, credential, item.request),
                        device.posted,
                        device.post_failed,
                    )
                case outputs.Fetch():
                    self._fetch(player, item)
        self.loop.at(player.number, device.due_at(self.loop.now()))

    def dialled(self, player: _Player) -> None:
        """It stands, or it does not: the next one may try."""
        self._dials.discard(player.number)
        self._dial()

    def _dial(self) -> None:
        while self._to_dial and len(self._dials) < _DIALS_AT_ONCE and not self._stopping:
            player = self._to_dial.popleft()
            url, player.broker = player.broker, ""
            if not url:
                continue  # it went away meanwhile
            self._dials.add(player.number)
            try:
                player.link.dial(url, player.device.identity.credential)
            except (errors.ConfigError, ValueError) as error:
                logger.warning("%s", error)
                self._dials.discard(player.number)
                player.device.dial_failed(self.loop.now())
                self.loop.at(player.number, player.device.due_at(self.loop.now()))

    def _ask(
        self,
        player: _Player,
        call: Callable[[], T],
        answered: Callable[[T, float], list[outputs.Output]],
        failed: Callable[[int, float], None],
    ) -> None:
        self._requests += 1

        def done(future: concurrent.futures.Future[T]) -> None:
            if not future.cancelled():
                self.loop.hand_over(lambda: told(future))

        def told(future: concurrent.futures.Future[T]) -> None:
            now = self.loop.now()
            try:
                wanted = answered(future.result(), now)
            except RefusedError as error:
                logger.info("%s: %s", player.device.identity.target, error)
                failed(error.status, now)
                wanted = []
            except errors.EdgeflowError as error:
                logger.warning("%s: %s", player.device.identity.target, error)
                failed(0, now)
                wanted = []
            self.carry_out(player, wanted)

        self._asking.submit(call).add_done_callback(done)

    def _fetch(self, player: _Player, item: outputs.Fetch) -> None:
        execution = item.deployment.execution
        credential = player.device.identity.credential

        def wanted() -> bool:
            task = player.device.memory.task
            return not self._stopping and task is not None and task.deployment.execution == execution

        def fetch() -> tuple[str, str, int]:
            size = 0
            try:
                for file in item.deployment.files:
                    if not self._web.fetch(credential, file, lambda: not wanted()):
                        return "superseded", "", size
                    size += file.size
            except RefusedError as error:
                return ("refused" if error.status else "unreachable"), str(error), size
            except errors.ContractError as error:
                return error.reason, str(error), size
            return "", "", size

        def done(future: concurrent.futures.Future[tuple[str, str, int]]) -> None:
            if not future.cancelled():
                self.loop.hand_over(lambda: told(*future.result()))

        def told(reason: str, message: str, size: int) -> None:
            self._downloaded += size
            if self._stopping:
                return  # it was told to stop: that says nothing about the files
            self.carry_out(player, player.device.fetched(execution, reason, message, self.loop.now()))

        self._fetching.submit(fetch).add_done_callback(done)

    # The end.

    def _say_goodbye(self) -> None:
        """Every device that the server hears takes its leave, and the broker has time to hear it."""
        self._stopping = True
        # Questions that still wait would only stand in the way of the goodbyes.
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._asking = concurrent.futures.ThreadPoolExecutor(_WEB_THREADS, "simulated-goodbye")
        now = self.loop.now()
        posts = []
        for player in self._players:
            for item in player.device.goodbye(now):
                if isinstance(item, outputs.Publish):
                    self.sent += 1
                    player.link.publish(item.kind, item.payload)
                elif isinstance(item, outputs.Post):
                    credential = player.device.identity.credential
                    posts.append(self._asking.submit(self._web.post, credential, item.request))
        deadline = time.monotonic() + _GOODBYE_S
        linked = [player for player in self._players if player.device.linked]
        while time.monotonic() < deadline and any(player.link.unconfirmed for player in linked):
            # Timers set off nothing new any more.
            self.loop.turn(lambda number: None)
        for player in self._players:
            player.link.close()
        with contextlib.suppress(TimeoutError):
            for future in concurrent.futures.as_completed(
                posts, timeout=max(deadline - time.monotonic(), 0.1)
            ):
                if future.exception() is not None:
                    logger.info("the server does not hear a goodbye: %s", future.exception())


def _resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20
