"""Every state that a power cut may leave behind during the life of a device: recovery finds a verified model,
and what was promised holds. And every fsync of the store is needed for that."""

from __future__ import annotations

import logging
import re
import shutil
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from edgeflow_agent.core.crash_loop import DEATHS, Life
from edgeflow_agent.core.machine import Work
from edgeflow_agent.inference.slot import Slot
from edgeflow_agent.runtime.agent import Agent
from edgeflow_agent.runtime.crash_guard import CrashGuard
from edgeflow_agent.runtime.deployer import Deployer
from edgeflow_agent.runtime.executor import Executor
from edgeflow_agent.runtime.reporting import Reporter
from edgeflow_agent.store import blobs, durable
from edgeflow_agent.store.blobs import BlobStore
from edgeflow_agent.store.journal import Journal, Record
from edgeflow_agent.store.lives import Fall, LivesFile
from edgeflow_agent.store.releases import Manifest, ReleaseStore
from edgeflow_agent.store.spool import of_reports
from edgeflow_agent.testing import FakeServer, file_ref
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Action, DesiredDeployment, Trial
from edgeflow_agent.wire.states import State
from tests.agent.conftest import enrol, linear, request, settings, wait_for
from tests.agent.power_cuts import Mark, Recorder, Sync, Tree, build, walk
from tests.agent.test_agent_crash import kill_in_the_past

# What serves once a generation is settled (0: before the first).
MODELS = {number: linear(number) for number in (1, 2, 3, 5)}
SERVED = {0: None, 1: 1, 2: 2, 3: 3, 4: 3, 5: 3, 6: 2, 7: None}

# The generation whose names it has then.
NAMED = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 6: 6}

# The one that is given up for what served before it, once it has killed the agent too often.
FALLING = 6
# Syncs without which nothing breaks, by the functions that lead to them: at how many places, and why they
# stay.
NEEDLESS = {
    "announce > replace": (1, "agent.json means nothing after a power cut, but shares the way of others"),
    "announce > replace > sync_folder": (1, "the same"),
    "write > replace > sync_folder": (1, "the ratchet: the journal, in the same folder, comes after it"),
    "point > _set > point > sync_folder": (1, "`previous`: not where `current` is already what it shall be"),
    "go_back > _set > point > sync_folder": (2, "done again until the verdict, in the same folder, is done"),
}


def digest(number: int | None) -> str:
    if number is None:
        return ""
    return documents.bundle_digest([file_ref("model.onnx", MODELS[number])])


def live(server: FakeServer, start: Callable[[], Agent], recorder: Recorder) -> None:
    """Install three versions, rename the third, try a fourth that goes back, give up a fifth that kills the
    agent, and stop serving."""

    def settle(generation: int) -> None:
        wait_for(lambda: agent._deployer.handled.get(key) == generation, what=f"generation {generation}")

    agent = start()

    server.deploy(1, {"model.onnx": MODELS[1]})
    server.wait_report("deployed", execution="e1")
    wait_for(lambda: agent._deployer.handled, what="the first generation")
    (key,) = agent._deployer.handled
    for generation in (2, 3):
        server.deploy(generation, {"model.onnx": MODELS[generation]})
        settle(generation)
    server.deploy(4, {"model.onnx": MODELS[3]}, version="renamed")
    settle(4)
    server.deploy(5, {"model.onnx": MODELS[5]}, trial=Trial(duration_s=3600, max_error_rate=-1.0))
    server.wait_report("trial", execution="e5")
    for _ in range(10):
        request(f"{agent.url}/infer", [1, 1, 1, 1])
    settle(5)
    server.deploy(FALLING, {"model.onnx": MODELS[2]})
    settle(FALLING)
    agent.stop()
    recorder.mark("killing")
    kill_in_the_past(agent.config.state_dir, DEATHS)
    agent = start()
    server.wait_report("rolled_back", execution=f"e{FALLING}", reason="crash_loop")
    remove = DesiredDeployment(id="d1", execution="e7", name="iris", action=Action.REMOVE)
    server.offer(server.sign(7, [remove]))
    settle(7)


class Recorded:
    """One life of a device, operation by operation."""

    def __init__(self, folder: Path, *, links: bool) -> None:
        state_dir = folder / "state"
        server = FakeServer(poll_s=0.02)
        enrol(server, state_dir)
        self.recorder = Recorder(state_dir)
        self.records: list[bytes] = [msgspec.json.encode(Record())]
        self.lives: list[tuple[Life, ...]] = [()]
        with pytest.MonkeyPatch.context() as patch:
            # What was there before is certain.
            self.recorder.look()
            self.recorder.operations.extend(
                Sync(node, "") for node in {self.recorder.top, *self.recorder._held}
            )
            self._promises(patch)
            self.recorder.install(patch, links=links)
            agents: list[Agent] = []

            def start() -> Agent:
                agents.append(Agent(settings(state_dir, server)))
                agents[-1].start()
                return agents[-1]

            try:
                live(server, start, self.recorder)
            finally:
                agents[-1].stop()
                server.stop()
        self.operations = self.recorder.operations
        self.recorder.close()

    def _promises(self, patch: pytest.MonkeyPatch) -> None:
        write, admit = Journal.write, BlobStore.admit
        live_on, fall = LivesFile.write_lives, LivesFile.write_fall

        def written(journal: Journal, record: Record) -> None:
            self.records.append(msgspec.json.encode(record))
            number = len(self.records) - 1
            write(journal, record)
            self.recorder.mark("written", number)
            if record.active is None:
                self.recorder.mark("settled")

        def admitted(store: BlobStore, sha256: str) -> None:
            admit(store, sha256)
            self.recorder.mark("admitted", sha256)

        def lived(file: LivesFile, lives: tuple[Life, ...]) -> None:
            self.lives.append(lives)
            number = len(self.lives) - 1
            live_on(file, lives)
            self.recorder.mark("lived", number)

        def fell(file: LivesFile, fallen: Fall) -> None:
            fall(file, fallen)
            self.recorder.mark("fell", fallen.digest)

        patch.setattr(LivesFile, "write_lives", lived)
        patch.setattr(LivesFile, "write_fall", fell)
        patch.setattr(Journal, "write", written)
        patch.setattr(BlobStore, "admit", admitted)

    def handled(self, promised: int) -> list[dict[str, int]]:
        """What the ratchet may say."""
        return [msgspec.json.decode(item, type=Record).handled for item in self.records[promised:]]

    def sites(self) -> list[str]:
        return sorted({item.site for item in self.operations if isinstance(item, Sync) and item.site})


@pytest.fixture(
    scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["links", "copies"]
)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("recorded"), links=request.param)


class Promised(NamedTuple):
    """What the code has said is done: which record of the journal and which lives are kept, which file was
    downloaded for the deployment in work, whether the agent dies of its model, and what was given up."""

    record: int = 0
    lives: int = 0
    blob: str = ""
    dying: bool = False
    fallen: str = ""

    def after(self, mark: Mark) -> Promised:
        if mark.what == "written":
            return self._replace(record=mark.value)
        if mark.what == "lived":
            return self._replace(lives=mark.value)
        if mark.what == "killing":
            return self._replace(dying=True)
        if mark.what == "fell":
            return self._replace(fallen=mark.value)
        return self._replace(blob={"admitted": mark.value, "settled": ""}.get(mark.what, self.blob))


class Looking(Executor):
    """Loads nothing: the question is not whether these bytes run, but whether they are the right ones."""

    def _load_release(self, name: str, manifest: Manifest) -> Any:
        model = manifest.deployment.model
        return types.SimpleNamespace(
            release=name, digest=manifest.digest, model=model, generation=manifest.generation
        )


class Judge:
    """Recovers from one state after the other, and says what is wrong with the outcome."""

    def __init__(self, life: Recorded, place: Path) -> None:
        self._life = life
        self._place = place
        self._spool = of_reports(place.parent / "spool.db", max_bytes=10**9)
        self._known: dict[tuple[Tree, Promised], str] = {}
        self.judged = 0

    def violations(self, without: str = "") -> Iterator[str]:
        """For every point of the recording; `without` takes out the syncs of that site."""
        promised = Promised()
        for number, operation, trees in walk(self._life.recorder, without=without):
            for tree in trees:
                state = (tree, promised)
                if state not in self._known:
                    self._known[state] = self._judge(tree, promised)
                if self._known[state]:
                    yield f"before operation {number} ({operation}): {self._known[state]}"
            if isinstance(operation, Mark):
                promised = promised.after(operation)

    def _judge(self, tree: Tree, promised: Promised) -> str:
        self.judged += 1
        shutil.rmtree(self._place, ignore_errors=True)
        build(tree, self._place)
        journal, blob = Journal(self._place), promised.blob
        record = msgspec.json.encode(journal.record)
        if record not in self._life.records[promised.record :]:
            return f"the journal is not what was promised (record {promised.record}): {record!r}"
        if LivesFile(self._place).lives not in self._life.lives[promised.lives :]:
            return "how the agent ended last is not what was promised"
        if self._ratchet() not in self._life.handled(promised.record):
            return "the ratchet, without the journal, lets an old document in"
        store = BlobStore(self._place)
        if blob and not (store.path(blob).exists() and blobs.digest_of(store.path(blob)) == blob):
            return "a file that was downloaded is lost"
        if promised.fallen and promised.fallen not in LivesFile(self._place).fallen():
            return "what was given up is forgotten"
        return self._recover(journal, store, promised)

    def _ratchet(self) -> dict[str, int] | None:
        path = self._place / "ratchet.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Record).handled if path.exists() else {}
        except msgspec.MsgspecError:
            return None

    def _recover(self, journal: Journal, store: BlobStore, promised: Promised) -> str:
        found, slot = journal.record, Slot()
        releases = ReleaseStore(self._place, store)
        config = settings(self._place)
        executor = Looking(config, store, releases, slot, lambda: None, lambda *_: None)  # type: ignore[arg-type, return-value]
        reporter = Reporter(self._spool, lambda: None)
        guard = CrashGuard(LivesFile(self._place), releases, reporter)
        deployer = Deployer(journal, executor, reporter, lambda: slot.current)
        durable.sweep(self._place)
        guard.begin(deployer.active)
        deployer.prepare()
        executor.boot()
        executor.clear_up(deployer.active)
        if slot.current is not None:
            name, said = slot.current.release, slot.current.digest
            content = (releases.path(name) / "files" / "model.onnx").read_bytes()
            if documents.bundle_digest([file_ref("model.onnx", content)]) != said:
                return f"{name} serves without being what it says"
            if content not in MODELS.values():
                return f"{name} serves what nobody signed"
            generation = max(found.handled.values(), default=0)
            if promised.fallen or (promised.dying and said == digest(SERVED[FALLING - 1])):
                generation = min(generation, FALLING - 1)
            if found.active is None and slot.current.generation != NAMED[generation]:
                return f"{name} does not have the names of generation {generation}"
        return _wrong(found, slot.current.digest if slot.current is not None else "", promised)


def _wrong(record: Record, served: str, promised: Promised) -> str:
    """What is wrong with serving this, according to the journal and to how the agent died."""
    generation = max(record.handled.values(), default=0)
    allowed = {digest(SERVED[generation])}
    if generation == FALLING and promised.fallen:
        allowed = {digest(SERVED[FALLING - 1])}
    elif generation == FALLING and promised.dying:
        allowed.add(digest(SERVED[FALLING - 1]))
    active = record.active
    if active is not None and active.work is Work.REMOVE and active.state is State.DEPLOYED:
        allowed.add("")
    elif active is not None and active.work is Work.INSTALL and active.activated:
        allowed.add(documents.bundle_digest(active.deployment.files))
        if active.state is State.DEPLOYED:
            allowed = {documents.bundle_digest(active.deployment.files)}
    if served in allowed:
        return ""
    names = {digest(number): number for number in (None, *MODELS)}
    state = active.state if active is not None else "settled"
    return f"serves {names.get(served)} at generation {generation}, {state}"


@pytest.fixture
def judge(recorded: Recorded, tmp_path: Path) -> Iterator[Judge]:
    """Judges on a file system in memory, where there is one: nothing here asks a disk."""
    memory = Path("/dev/shm")
    place = (memory if memory.is_dir() else tmp_path) / f"edgeflow-{tmp_path.name}-{id(recorded)}"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        # Thousands of recoveries have much to complain about.
        logging.disable(logging.CRITICAL)
        yield Judge(recorded, place / "state")
    logging.disable(logging.NOTSET)
    shutil.rmtree(place)


def test_no_power_cut_leaves_a_device_without_its_model(judge: Judge) -> None:
    assert list(judge.violations()) == []
    assert judge.judged > 500


def test_every_sync_is_needed(recorded: Recorded, judge: Judge) -> None:
    """The enumerator finds what it should: without any one of the syncs there is a state that breaks."""
    needless = [site for site in recorded.sites() if next(judge.violations(without=site), None) is None]
    places = Counter(re.sub(r":\d+", "", site) for site in needless)
    assert places == {names: times for names, (times, _) in NEEDLESS.items()}
