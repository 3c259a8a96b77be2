"""Carrying out the effects that the machine of one deployment asks for.

Every effect may run twice: after a crash it is taken up again from whatever the disk says.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec

from edgeflow_agent import errors
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.core import backoff
from edgeflow_agent.core.machine import Effect
from edgeflow_agent.inference import compiled, engine, slot, trial_load
from edgeflow_agent.link import download
from edgeflow_agent.link.http import DeviceApi
from edgeflow_agent.runtime import asking, watching
from edgeflow_agent.runtime.interruption import Interruption
from edgeflow_agent.store import crashpoints, releases
from edgeflow_agent.store.blobs import BlobStore
from edgeflow_agent.store.journal import Entry
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import DesiredDeployment, FileRef, Interface, ModelRef

logger = logging.getLogger(__name__)

_MIB = 1 << 20
_PROGRESS_EVERY_S = 2.0
_DOWNLOAD_DEADLINE_S = 24 * 3600.0
_MAX_REFUSED = 5


class Executor:
    """The hands of the deployer: content store, releases, slot and download."""

    def __init__(
        self,
        config: AgentConfig,
        store: BlobStore,
        release_store: releases.ReleaseStore,
        model_slot: slot.Slot,
        api: Callable[[], DeviceApi],
        on_progress: Callable[[Entry, float | None], None],
    ) -> None:
        self._config = config
        self._blobs = store
        self._releases = release_store
        self._slot = model_slot
        self._api = api
        self._on_progress = on_progress
        self._candidate: slot.Serving | None = None
        self._compiled = compiled.folder(config.state_dir) if config.compile else None

    def release_name(self, entry: Entry) -> str:
        """The folder of this deployment. With the generation, because a name is never used twice."""
        return f"{releases.folder_name(entry.deployment.execution)}-{entry.generation}"

    def pointers(self) -> tuple[str, str]:
        """What `current` and `previous` name now."""
        return self._releases.current(), self._releases.previous()

    def check_room(self, deployment: DesiredDeployment) -> None:
        """Raise when the device does not take a model of this size, or has no space for it."""
        total = sum(item.size for item in deployment.files)
        if total > self._config.max_model_mb * _MIB:
            raise errors.StateError(
                f"the model has {total} bytes; this device takes at most {self._config.max_model_mb} MiB "
                "(store.max_model_mb)",
                reason="too_large",
            )
        keep_free = self._config.keep_free_mb * _MIB
        try:
            self._blobs.check_space(deployment.files, keep_free=keep_free)
        except errors.StateError:
            self._releases.collect_garbage(files=deployment.files)
            self._blobs.check_space(deployment.files, keep_free=keep_free)

    def carry_out(self, effect: Effect, entry: Entry, interruption: Interruption) -> str:
        """Do it, or raise. What it gives is a remark for the report, mostly none."""
        remark = ""
        if effect is Effect.FETCH:
            self._fetch(entry, interruption)
        elif effect is Effect.VERIFY:
            self._verify(entry, interruption)
        elif effect is Effect.LOAD:
            self._load(entry, interruption)
        elif effect is Effect.ASK:
            self._ask(entry, interruption)
        elif effect is Effect.ACTIVATE:
            self._activate(entry, interruption)
        elif effect is Effect.WATCH:
            remark = watching.watch(entry, self._slot, interruption, self._on_progress)
        elif effect is Effect.COMMIT:
            self._slot.release_previous()
            self._releases.collect_garbage()
            self._forget_compiled()
        elif effect is Effect.REVERT:
            self._revert(entry)
        elif effect is Effect.DISCARD:
            self._candidate = None
            self._releases.discard(self.release_name(entry))
            engine.trim_memory()
        elif effect is Effect.ADOPT:
            self._adopt(entry)
        elif effect is Effect.UNLOAD:
            self._releases.unpoint()
            self._slot.clear()
            self._releases.collect_garbage()
            self._forget_compiled()
        return remark

    def _forget_compiled(self) -> None:
        try:
            kept = [self._releases.manifest(name).digest for name in self.pointers() if name]
        except (errors.StateError, OSError):
            return  # a release is damaged: the next deployment clears up
        compiled.forget_all_but(compiled.folder(self._config.state_dir), kept)

    # Bringing the files here.

    def _fetch(self, entry: Entry, interruption: Interruption) -> None:
        files = list({item.sha256: item for item in entry.deployment.files}.values())
        total = sum(item.size for item in files) or 1
        done = 0
        said = time.monotonic()

        def on_bytes(count: int) -> None:
            nonlocal said
            if count:
                crashpoints.reach("download.part_written")
            now = time.monotonic()
            if now - said >= _PROGRESS_EVERY_S:
                said = now
                self._on_progress(entry, min((done + count) / total, 1.0))

        for item in files:
            interruption.check()
            if not self._blobs.has(item):
                self._fetch_one(item, interruption, on_bytes)
            done += item.size

    def _fetch_one(self, item: FileRef, interruption: Interruption, on_bytes: Callable[[int], None]) -> None:
        partial = self._blobs.partial(item.sha256)
        deadline = time.monotonic() + _DOWNLOAD_DEADLINE_S
        wrong = failures = refused = 0
        while True:
            before = download.partial_size(partial)
            try:
                download.fetch(
                    self._api(),
                    item,
                    partial,
                    gap_s=self._config.download_gap_s,
                    should_stop=interruption.is_due,
                    on_bytes=on_bytes,
                )
            except download.StoppedError:
                interruption.check()
            except errors.ContractError:
                wrong += 1
                if wrong >= 2:
                    raise
                logger.warning("%s arrived damaged; it is fetched once more", item.path)
            except errors.TransferError as error:
                refused += error.status == 401
                # The credential may be changing just now.
                again = error.retry or (error.status == 401 and refused < _MAX_REFUSED)
                if not again or time.monotonic() > deadline:
                    raise
                failures = 1 if download.partial_size(partial) > before else failures + 1
                # Backing off is no secret of cryptography.
                delay = backoff.delay(failures, random.random())  # noqa: S311
                logger.info("%s; trying again in %.1f s", error, delay)
                interruption.wait(delay)
            else:
                self._blobs.admit(item.sha256)
                return

    def _verify(self, entry: Entry, interruption: Interruption) -> None:
        # Hashes every file again, and fetches anew what a power cut may have damaged since.
        self._fetch(entry, interruption)
        manifest = releases.Manifest(
            deployment=entry.deployment,
            generation=entry.generation,
            digest=documents.bundle_digest(entry.deployment.files),
        )
        self._releases.lay_out(self.release_name(entry), manifest)

    # Loading and swapping.

    def _load(self, entry: Entry, interruption: Interruption) -> None:
        name = self.release_name(entry)
        self._candidate = None  # of an attempt before: never two in memory
        manifest = self._releases.verify(name)
        deployment = entry.deployment
        verdict = trial_load.trial_load(
            self._releases.entry(name, manifest),
            declared=deployment.interface.inputs,
            threads=deployment.runtime.threads or self._config.threads,
            providers=deployment.runtime.providers or self._config.providers,
            timeout_s=deployment.runtime.load_timeout_s,
            max_memory_mb=deployment.runtime.max_memory_mb,
            compiled=self._compiled,
            digest=manifest.digest,
            should_stop=interruption.is_due,
        )
        if verdict is None:
            interruption.check()
        crashpoints.reach("load.trial_passed")
        self._candidate = self._load_release(name, manifest)
        crashpoints.reach("load.loaded")

    def _load_release(self, name: str, manifest: releases.Manifest) -> slot.Serving:
        deployment = manifest.deployment
        return slot.load(
            self._releases.entry(name, manifest),
            model=deployment.model or ModelRef(name="", version=""),
            declared=deployment.interface,
            threads=self._config.threads,
            providers=self._config.providers,
            compiled=self._compiled,
            runtime=deployment.runtime,
            digest=manifest.digest,
            deployment=deployment.id,
            execution=deployment.execution,
            generation=manifest.generation,
            release=name,
            monitor=deployment.monitor,
        )

    def _ask(self, entry: Entry, interruption: Interruption) -> None:
        def say(text: str) -> None:
            # It is loaded: who dies while it waits has not died of loading it.
            self._on_progress(msgspec.structs.replace(entry, tries=0, message=text), None)

        config = self._config
        asking.wait_until_allowed(config.can_update, interruption, say, retry_s=config.can_update_retry_s)

    def with_figures(self, entry: Entry) -> Entry:
        """The entry with what is counted of its model on trial, as long as that model answers."""
        serving = self._slot.current
        trial = entry.deployment.trial
        asked = trial.duration_s > 0 or trial.minimum_requests > 0
        if not asked or serving is None or serving.release != self.release_name(entry):
            return entry
        return msgspec.structs.replace(entry, figures=watching.figures(self._slot))

    def _activate(self, entry: Entry, interruption: Interruption) -> None:
        name = self.release_name(entry)
        serving = self._slot.current
        if serving is not None and serving.release == name:
            return  # the start of the agent has loaded it already
        if self._candidate is None or self._candidate.release != name:
            self._load(entry, interruption)
        assert self._candidate is not None
        self._releases.point(current=name, previous=entry.before_current)
        self._slot.swap(self._candidate)
        self._candidate = None
        crashpoints.reach("swap.done")

    def _revert(self, entry: Entry) -> None:
        # What answers first: requests do not wait for a disk that may be full.
        target = entry.before_current
        self._candidate = None
        current, previous = self._slot.current, self._slot.previous
        if current is None or current.release != target:
            if previous is not None and previous.release == target:
                self._slot.revert(previous)
            else:
                self._slot.revert(self._first_servable([target]) if target else None)
        self.restore_pointers(entry)

    def restore_pointers(self, entry: Entry) -> None:
        """`current` and `previous` as they were before this deployment."""
        if entry.activated:
            self._releases.point(current=entry.before_current, previous=entry.before_previous)

    def _adopt(self, entry: Entry) -> None:
        serving = self._slot.current
        if serving is None:
            return
        deployment = entry.deployment
        manifest = releases.Manifest(
            deployment=deployment, generation=entry.generation, digest=serving.digest
        )
        self._releases.rewrite(serving.release, manifest)
        self._slot.rename(
            dataclasses.replace(
                serving,
                model=deployment.model or serving.model,
                interface=Interface(
                    inputs=serving.interface.inputs,
                    outputs=serving.interface.outputs,
                    columns=deployment.interface.columns,
                    labels=deployment.interface.labels,
                ),
                deployment=deployment.id,
                execution=deployment.execution,
                generation=entry.generation,
                runtime=deployment.runtime,
                monitor=deployment.monitor,
                loaded_at=datetime.now(UTC),
            )
        )

    def forget_recalled(self, deployment: DesiredDeployment) -> None:
        """Keep nothing to fall back on that was recalled."""
        name = self._releases.previous()
        if name and self._releases.manifest(name).digest in deployment.recalled:
            self._releases.forget_previous()
            logger.info("release %s was recalled, and is not kept to fall back on", name)
            self.clear_up(None)

    def check_adoption(self, deployment: DesiredDeployment) -> None:
        """Raise ModelError when what serves does not have the declared inputs."""
        serving = self._slot.current
        if serving is not None:
            engine.check_interface(serving.engine, deployment.interface.inputs)

    # Starting with what the disk holds.

    def boot(self) -> None:
        """Serve the best release that is whole: `current`, else `previous`, else another."""
        serving = self._first_servable(self._releases.bootable())
        if serving is not None:
            self._slot.swap(serving)
            logger.info("serving %s version %s from disk", serving.model.name, serving.model.version)

    def clear_up(self, entry: Entry | None) -> None:
        """Remove what a killed agent or a failed deployment left on the disk, but nothing that serves or that
        `entry`, the deployment in work, may need. After `boot`, whose last resort may be among it."""
        serving = self._slot.current
        keep = {serving.release} if serving is not None else set()
        if entry is not None:
            keep |= {self.release_name(entry), entry.before_current, entry.before_previous}
        try:
            self._releases.collect_garbage(releases=keep, files=entry.deployment.files if entry else ())
        except OSError as error:
            logger.error("cannot clear up: %s", error)

    def _first_servable(self, names: Iterable[str]) -> slot.Serving | None:
        for name in names:
            # Twice: another model is not served for one bad moment of the disk.
            for _ in range(2):
                try:
                    return self._load_release(name, self._releases.verify(name))
                except errors.EdgeflowError as error:
                    logger.error("release %s cannot be served: %s", name, error)
        return None
