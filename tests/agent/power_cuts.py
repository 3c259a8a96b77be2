"""What a power cut may leave on a disk: a recording of file operations, and the states that follow from it.

The model is weaker than any journalling file system, and on purpose. Until its file is synced, data may be
there, half there, gone, or zeros of the right length. Until its folder is synced, each change of a name may
have happened or not, in any combination; a rename is one change. Only what a sync has confirmed is certain.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

STORE = f"{os.sep}edgeflow_agent{os.sep}store{os.sep}"
# SQLite's own files are SQLite's affair; the others mean nothing after the process is gone.
LEFT_OUT = ("spool.db", "spool.db-wal", "spool.db-shm", "lock", "agent.json")
CALLS = ("open", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "symlink", "link")


@dataclasses.dataclass(frozen=True)
class Write:
    """The content of a file is another one."""

    node: int
    data: bytes


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of one folder change in one step: to a node, or to nothing. `after` is a change that must have
    happened before this one can (the other half of a rename between folders)."""

    folder: int
    changes: tuple[tuple[str, int | None], ...]
    after: int = -1


@dataclasses.dataclass(frozen=True)
class Sync:
    """A file or folder is synced, from this place in the store's code."""

    node: int
    site: str


@dataclasses.dataclass(frozen=True)
class Mark:
    """Something that the code has promised from here on."""

    what: str
    value: Any = None


Operation = Write | Names | Sync | Mark


class Recorder:
    """Records what happens below `root` while it is installed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self.links: dict[int, str] = {}
        self.folders: set[int] = set()
        self._held: dict[int, int] = {}
        self._data: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._lock = threading.RLock()
        self._open, self._close = os.open, os.close
        self.top = os.stat(root).st_ino

    def install(self, patch: pytest.MonkeyPatch, *, links: bool = True) -> None:
        """Record from now on; with `links` false this file system knows no hard links."""
        self.look()
        for name in CALLS:
            patch.setattr(os, name, self._watched(getattr(os, name)))
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            with self._lock:
                fsync(descriptor)
                self.look()
                node = os.fstat(descriptor).st_ino
                if node in self._held or node == self.top:
                    self.operations.append(Sync(node, _site()))

        patch.setattr(os, "fsync", synced)
        if not links:

            def link(*_: Any, **__: Any) -> None:
                raise PermissionError(1, "no hard links here")

            patch.setattr(os, "link", link)

    def mark(self, what: str, value: Any = None) -> None:
        """Note a promise."""
        with self._lock:
            self.look()
            self.operations.append(Mark(what, value))

    def close(self) -> None:
        """Let go of the nodes."""
        for descriptor in self._held.values():
            self._close(descriptor)

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self.look()
                try:
                    return call(*args, **kwargs)
                finally:
                    self.look()

        return watched

    def look(self) -> None:
        """Note what is different since the last look."""
        names: dict[int, dict[str, int]] = {}
        data: dict[int, bytes] = {}
        self._walk(self.root, names, data)
        for node, content in data.items():
            if content != self._data.get(node, b""):
                self.operations.append(Write(node, content))
        self._data = data
        changed: list[tuple[int, tuple[tuple[str, int | None], ...]]] = []
        for folder in {**names, **self._names}:
            before, now = self._names.get(folder, {}), names.get(folder, {})
            if folder not in names:
                continue  # removed as a whole: its own name is gone
            differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            if differing:
                changed.append((folder, tuple((name, now.get(name)) for name in differing)))
        # What appears comes before what disappears: between folders that is one rename.
        changed.sort(key=lambda item: all(node is None for _, node in item[1]))
        first = len(self.operations)
        for number, (folder, changes) in enumerate(changed):
            only_gone = all(node is None for _, node in changes)
            self.operations.append(Names(folder, changes, first if number and only_gone else -1))
        self._names = names

    def _walk(self, path: Path, names: dict[int, dict[str, int]], data: dict[int, bytes]) -> None:
        found = names.setdefault(os.stat(path).st_ino, {})
        for item in os.scandir(path):
            if item.name in LEFT_OUT:
                continue
            node = item.inode()
            found[item.name] = node
            if node not in self._held:
                # Held open, so that its number is not given to another one.
                self._held[node] = self._open(item.path, os.O_PATH | os.O_NOFOLLOW)
            if item.is_symlink():
                self.links[node] = os.readlink(item.path)
            elif item.is_dir():
                self.folders.add(node)
                self._walk(Path(item.path), names, data)
            else:
                data[node] = Path(f"/proc/self/fd/{self._held[node]}").read_bytes()


def _site() -> str:
    """The functions of the store that lead to a sync, outermost first."""
    frame, found = sys._getframe(2), []
    while frame is not None:
        if STORE in frame.f_code.co_filename:
            found.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " > ".join(reversed(found))


Tree = tuple[tuple[str, Any], ...]


class Disk:
    """The certain and the uncertain after some operations."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._synced: dict[int, bytes] = {}
        self._data: dict[int, bytes] = {}
        self._certain: dict[int, dict[str, int]] = {}
        self._uncertain: list[tuple[int, Names]] = []

    def apply(self, number: int, operation: Operation) -> None:
        """Take the next operation into account."""
        if isinstance(operation, Write):
            self._data[operation.node] = operation.data
        elif isinstance(operation, Names):
            self._uncertain.append((number, operation))
        elif isinstance(operation, Sync):
            if operation.node in self._data:
                self._synced[operation.node] = self._data[operation.node]
            for _, change in self._uncertain:
                if change.folder == operation.node:
                    self._change(self._certain, change)
            self._uncertain = [item for item in self._uncertain if item[1].folder != operation.node]

    @staticmethod
    def _change(names: dict[int, dict[str, int]], change: Names) -> None:
        for name, node in change.changes:
            if node is None:
                names.setdefault(change.folder, {}).pop(name, None)
            else:
                names.setdefault(change.folder, {})[name] = node

    def states(self, chance: random.Random) -> Iterator[Tree]:
        """What a power cut may leave now. Every combination of a few uncertain changes; of many, each alone,
        each left out, each beginning, and some at random."""
        for kept in self._combinations(chance):
            names = {folder: dict(found) for folder, found in self._certain.items()}
            done = {number for number, _ in kept}
            waiting = {number for number, _ in self._uncertain}
            for _, change in kept:
                if change.after not in waiting or change.after in done:
                    self._change(names, change)
            for content in ("old", "half", "zeros", "new"):
                yield tuple(sorted(self._tree(names, self._recorder.top, "", content)))

    def _combinations(self, chance: random.Random) -> Iterable[list[tuple[int, Names]]]:
        items = self._uncertain
        count = len(items)
        if count <= 4:
            chosen = set(itertools.product((False, True), repeat=count))
        else:
            chosen = {tuple(i < length for i in range(count)) for length in range(count + 1)}
            chosen |= {tuple(i == only for i in range(count)) for only in range(count)}
            chosen |= {tuple(i != without for i in range(count)) for without in range(count)}
            chosen |= {tuple(chance.random() < 0.5 for _ in range(count)) for _ in range(8)}
        return [[item for item, take in zip(items, wanted, strict=True) if take] for wanted in sorted(chosen)]

    def _tree(
        self, names: dict[int, dict[str, int]], folder: int, path: str, content: str
    ) -> Iterator[tuple[str, Any]]:
        for name, node in names.get(folder, {}).items():
            place = f"{path}{name}"
            if node in self._recorder.links:
                yield place, self._recorder.links[node]
            elif node in self._recorder.folders:
                yield place, None
                yield from self._tree(names, node, f"{place}/", content)
            else:
                yield place, self._content(node, content)

    def _content(self, node: int, content: str) -> bytes:
        old, new = self._synced.get(node, b""), self._data.get(node, b"")
        if content == "new" or old == new:
            return new
        if content == "half":
            return new[: len(new) // 2]
        return bytes(len(new)) if content == "zeros" else old


def walk(recorder: Recorder, *, without: str = "") -> Iterator[tuple[int, Operation, Iterable[Tree]]]:
    """Each operation with its number and with what a power cut just before it may leave; `without` takes out
    the syncs of that site. Until something becomes certain or is promised, what may be left only grows:
    looking just before that is enough, and the other operations come with nothing."""
    disk, chance = Disk(recorder), random.Random(0)
    operations: list[Operation] = [*recorder.operations, Mark("end")]
    for number, operation in enumerate(operations):
        if isinstance(operation, Sync) and operation.site == without != "":
            continue
        yield number, operation, disk.states(chance) if isinstance(operation, Sync | Mark) else ()
        disk.apply(number, operation)


def build(tree: Tree, place: Path) -> None:
    """Lay a state out as files. Files of one content that were one file may become two: nothing writes to
    one that is shared."""
    place.mkdir(parents=True)
    for name, value in tree:
        path = place / name
        if value is None:
            path.mkdir()
        elif isinstance(value, str):
            path.symlink_to(value)
        else:
            path.write_bytes(value)
