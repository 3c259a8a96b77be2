"""Releases: what can be served, laid out as plain files, and the two pointers `current` and `previous`."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from edgeflow_agent import errors, typed
from edgeflow_agent.store import blobs, crashpoints, durable
from edgeflow_agent.wire.documents import DesiredDeployment, FileRef

logger = logging.getLogger(__name__)

# What is being built, and what is being removed, is no release.
_NEVER = (".tmp", ".trash")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a release is: the deployment that brought it, and the digest of its bundle."""

    deployment: DesiredDeployment
    generation: int
    digest: str


def folder_name(execution: str) -> str:
    """A folder name for an execution id, which is the server's text and could be anything."""
    return execution if _SAFE.fullmatch(execution) else hashlib.sha256(execution.encode()).hexdigest()


class ReleaseStore:
    """`releases/<name>/{files/…, manifest.json, READY}` and the pointers, under one folder."""

    def __init__(self, root: Path, store: blobs.BlobStore) -> None:
        self.root = root
        self._blobs = store
        self._releases = root / "releases"
        self._releases.mkdir(mode=0o700, exist_ok=True)

    def path(self, name: str) -> Path:
        """The folder of a release."""
        return self._releases / name

    def entry(self, name: str, manifest: Manifest) -> Path:
        """The file to load."""
        return self.path(name) / "files" / manifest.deployment.entry

    def lay_out(self, name: str, manifest: Manifest) -> None:
        """Build the release from blobs whose digests were just checked. Built aside and renamed, READY
        written last: a release that can be seen is whole."""
        final = self.path(name)
        if final.exists():
            with contextlib.suppress(errors.EdgeflowError):
                if self.verify(name).digest == manifest.digest:
                    self.rewrite(name, manifest)
                    return
            self.discard(name)
        building = self._releases / f"{name}.tmp"
        shutil.rmtree(building, ignore_errors=True)
        files = building / "files"
        files.mkdir(mode=0o700, parents=True)
        crashpoints.reach("release.begun")
        for item in manifest.deployment.files:
            _link_or_copy(self._blobs.path(item.sha256), files / item.path)
        crashpoints.reach("release.files_linked")
        durable.sync_folder(files)
        durable.create(building / "manifest.json", msgspec.json.encode(manifest))
        (building / "READY").touch(mode=0o600)
        durable.sync_folder(building)
        crashpoints.reach("release.before_rename")
        building.replace(final)
        durable.sync_folder(self._releases)
        crashpoints.reach("release.after_rename")

    def rewrite(self, name: str, manifest: Manifest) -> None:
        """Give a release that serves the names of another deployment of the same files."""
        durable.replace(self.path(name) / "manifest.json", msgspec.json.encode(manifest), label="adopt")

    def manifest(self, name: str) -> Manifest:
        """What a release says it is; raise StateError when it does not."""
        try:
            data = durable.patiently((self.path(name) / "manifest.json").read_bytes)
            return typed.read(Manifest, data)
        except (OSError, msgspec.MsgspecError) as error:
            raise errors.StateError(f"release {name} has no readable manifest: {error}") from error

    def verify(self, name: str) -> Manifest:
        """The manifest, after hashing every file: neither a loader nor a flipped bit comes in between."""
        try:
            is_complete = durable.patiently((self.path(name) / "READY").exists)
        except OSError as error:
            raise errors.StateError(f"release {name} cannot be read: {error}") from error
        if not is_complete:
            raise errors.StateError(f"release {name} is not complete")
        manifest = self.manifest(name)
        for item in manifest.deployment.files:
            self._verify_file(name, item)
        return manifest

    def _verify_file(self, name: str, item: FileRef) -> None:
        path = self.path(name) / "files" / item.path
        try:
            digest = durable.patiently(lambda: blobs.digest_of(path))
        except FileNotFoundError as error:
            raise errors.StateError(f"release {name} lacks {item.path}", reason="digest") from error
        except OSError as error:
            message = f"{item.path} of release {name} cannot be read: {error}"
            raise errors.StateError(message, reason="digest") from error
        if digest != item.sha256:
            raise errors.StateError(f"{item.path} of release {name} is damaged", reason="digest")

    # The pointers.

    def current(self) -> str:
        """The release that serves; empty when none does. Raise OSError when that cannot be read: who took it
        for none would remove what serves."""
        return self._pointed("current")

    def previous(self) -> str:
        """The release that served before; empty when none did. Raise OSError when that cannot be read."""
        return self._pointed("previous")

    def _pointed(self, link: str) -> str:
        try:
            return durable.patiently((self.root / link).readlink).name
        except FileNotFoundError:
            return ""

    def point(self, *, current: str, previous: str) -> None:
        """Set both pointers, `previous` first: at every instant one of them names a whole release."""
        crashpoints.reach("point.before_previous")
        self._set("previous", previous)
        crashpoints.reach("point.after_previous")
        crashpoints.reach("point.before_current")
        self._set("current", current)
        crashpoints.reach("point.after_current")

    def _set(self, link: str, name: str) -> None:
        if self._pointed(link) == name:
            return
        if name:
            durable.point(self.root / link, f"releases/{name}")
        else:
            durable.remove(self.root / link)

    def go_back(self, *, current: str, previous: str) -> None:
        """Let the pointers change places, `current` first: at every instant one of them names the release
        that is gone back to."""
        crashpoints.reach("back.before_current")
        self._set("current", current)
        crashpoints.reach("back.after_current")
        if self.path(previous).exists():
            self._set("previous", previous)
        crashpoints.reach("back.after_previous")

    def forget_previous(self) -> None:
        """Keep nothing to fall back on."""
        durable.remove(self.root / "previous")

    def unpoint(self) -> None:
        """Serve nothing from now on, also after a restart."""
        durable.remove(self.root / "previous")
        crashpoints.reach("remove.after_previous")
        durable.remove(self.root / "current")
        crashpoints.reach("remove.after_current")

    def bootable(self) -> Iterable[str]:
        """Releases to try at start, best first. The others are only a last resort for a `current` that
        is damaged; without any `current` the device is meant to serve nothing."""
        try:
            current, previous = self.current(), self.previous()
        except OSError as error:
            logger.error("which release is to serve cannot be read (%s): the newest does", error)
            current = previous = ""
        else:
            if not current:
                return [previous] if previous else []
        known = [name for name in (current, previous) if name]
        return itertools.chain(known, self._others(known))

    def _others(self, known: Collection[str]) -> Iterator[str]:
        try:
            paths = sorted(self._releases.iterdir(), key=lambda item: item.stat().st_mtime, reverse=True)
        except OSError as error:
            logger.error("which other releases there are cannot be read: %s", error)
            return
        for path in paths:
            if path.suffix not in _NEVER and path.name not in known:
                yield path.name

    # Clearing up.

    def discard(self, name: str) -> None:
        """Remove a release that no pointer names."""
        if name in ("", self.current(), self.previous()):
            return
        path = self.path(name)
        if path.exists():
            trash = self._releases / f"{name}.trash"
            shutil.rmtree(trash, ignore_errors=True)
            path.replace(trash)
            crashpoints.reach("gc.after_trash")
            shutil.rmtree(trash, ignore_errors=True)

    def collect_garbage(self, *, releases: Iterable[str] = (), files: Iterable[FileRef] = ()) -> None:
        """Remove what neither the pointers nor `releases` name, and blobs that nothing refers to."""
        keep = {self.current(), self.previous(), *releases}
        wanted = {item.sha256 for item in files}
        for path in list(self._releases.iterdir()):
            if path.suffix in _NEVER:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in keep:
                self.discard(path.name)
            else:
                durable.sweep(path)
                try:
                    wanted.update(item.sha256 for item in self.manifest(path.name).deployment.files)
                except errors.StateError:
                    logger.warning("release %s has no manifest; no blob is removed", path.name)
                    return
        self._blobs.sweep(wanted)


def _link_or_copy(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except OSError:
        # Some file systems know no hard links.
        shutil.copyfile(source, destination)
        destination.chmod(0o400)
        with destination.open("rb") as file:
            os.fsync(file.fileno())
