"""What survives a power cut: spool, journal, blobs, folder."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeflow_agent import errors
from edgeflow_agent.core.machine import Work
from edgeflow_agent.store.blobs import BlobStore
from edgeflow_agent.store.folder import StateFolder
from edgeflow_agent.store.journal import Entry, Journal, Record
from edgeflow_agent.store.releases import Manifest, ReleaseStore, folder_name
from edgeflow_agent.store.spool import of_reports
from edgeflow_agent.testing import file_ref
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Action, DesiredDeployment, Report, Stored
from edgeflow_agent.wire.states import State


def report(message: str = "") -> Report:
    return Report(boot="", seq=0, execution="e", generation=1, state=State.DEPLOYED, message=message)


class SpoolMachine(RuleBasedStateMachine):
    """The spool against a list: nothing is lost, doubled or renumbered, and every drop is counted."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool.db"
        self.spool = of_reports(self.path, max_bytes=4000)
        self.boot = self.spool.boot
        self.added = 0
        self.stored = 0
        self.kept: list[int] = []

    @rule(size=st.integers(0, 1500))
    def add(self, size: int) -> None:
        self.spool.add(report("x" * size))
        numbered = self.spool.pending(limit=10**6)[-1]
        self.added += 1
        self.kept.append(numbered.seq)
        self.kept = [item for item in self.kept if item in {r.seq for r in self.spool.pending(limit=10**6)}]
        assert numbered.seq in self.kept

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(self.kept or [0]), unique=True))
        gone = self.spool.stored(Stored(boot=self.boot, seqs=(*some, 10**9)))
        assert gone == len([seq for seq in some if seq in self.kept])
        self.stored += gone
        self.kept = [seq for seq in self.kept if seq not in some]
        assert self.spool.stored(Stored(boot="another", seqs=tuple(self.kept))) == 0

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = of_reports(self.path, max_bytes=4000)
        assert self.spool.boot == self.boot

    @invariant()
    def accounts(self) -> None:
        pending = self.spool.pending(limit=10**6)
        assert [item.seq for item in pending] == self.kept
        assert all(item.boot == self.boot for item in pending)
        assert self.added == len(self.kept) + self.stored + self.spool.dropped
        assert self.spool.pending_count == len(self.kept)

    def teardown(self) -> None:
        self.spool.close()
        self.folder.cleanup()


TestSpool = SpoolMachine.TestCase
TestSpool.settings = hypothesis_settings(max_examples=15, stateful_step_count=15, deadline=None)


def test_one_report_larger_than_the_spool_is_still_kept(tmp_path: Path) -> None:
    spool = of_reports(tmp_path / "s.db", max_bytes=100)
    for _ in range(3):
        spool.add(report("x" * 500))
    assert (len(spool.pending()), spool.dropped) == (1, 2)
    spool.close()


def test_a_spool_that_cannot_be_written_is_kept_in_memory_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.mkdir()  # as good as a full disk, for a user who may write everywhere
    spool = of_reports(path, max_bytes=10**6)
    spool.add(report())
    (numbered,) = spool.pending()
    assert spool.stored(Stored(boot=spool.boot, seqs=(numbered.seq,))) == 1
    spool.close()
    assert [item.name for item in tmp_path.iterdir()] == ["s.db"]


def test_what_the_disk_would_not_take_is_tried_again_in_its_order(tmp_path: Path) -> None:
    spool = of_reports(tmp_path / "s.db", max_bytes=10**6)
    spool._connection.execute("PRAGMA query_only = ON")
    for text in ("one", "two"):
        with pytest.raises(sqlite3.OperationalError):
            spool.add(report(text))
    assert (spool.pending(), spool.pending_count) == ([], 2)
    spool._connection.execute("PRAGMA query_only = OFF")
    spool.add(report("three"))
    assert [item.message for item in spool.pending()] == ["one", "two", "three"]
    assert spool.pending_count == 3
    spool._connection.execute("PRAGMA query_only = ON")
    for _ in range(101):
        with pytest.raises(sqlite3.OperationalError):
            spool.add(report("more"))
    assert (spool.pending_count, spool.dropped) == (103, 1)
    spool._connection.execute("PRAGMA query_only = OFF")
    assert len(spool.pending(limit=1000)) == spool.pending_count == 103
    spool.close()


def test_an_acknowledged_report_survives_kill_9(tmp_path: Path) -> None:
    code = (
        "import itertools, sys; from pathlib import Path; from edgeflow_agent.store.spool import of_reports\n"
        "from edgeflow_agent.wire.documents import Report\n"
        "spool = of_reports(Path(sys.argv[1]), max_bytes=10**9)\n"
        "for number in itertools.count(1):\n"
        "    spool.add(Report(boot='', seq=0, execution='e', generation=1, state='deployed'))\n"
        "    print(number, flush=True)\n"
    )
    path = tmp_path / "s.db"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(50):
            process.stdout.readline()
        process.kill()
        last = max([50, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
    spool = of_reports(path, max_bytes=10**9)
    assert [item.seq for item in spool.pending(limit=10**6)][:last] == list(range(1, last + 1))
    spool.close()


def test_the_journal_keeps_the_entry_and_the_ratchet(tmp_path: Path) -> None:
    deployment = DesiredDeployment(id="d", execution="e", name="n", action=Action.HOLD)
    entry = Entry(deployment=deployment, generation=3, key="k", work=Work.HOLD, state=State.ACCEPTED)
    record = Record(handled={"k": 2}, active=entry)
    Journal(tmp_path).write(record)
    assert Journal(tmp_path).record == record
    (tmp_path / "journal.json").write_bytes(b"{")
    assert Journal(tmp_path).record == Record(handled={"k": 2})
    assert list(tmp_path.glob("journal.corrupt-*"))


def laid_out(tmp_path: Path, name: str, data: bytes) -> ReleaseStore:
    blobs = BlobStore(tmp_path)
    item = file_ref("model.onnx", data)
    blobs.partial(item.sha256).write_bytes(data)
    blobs.admit(item.sha256)
    assert blobs.path(item.sha256).stat().st_mode & 0o777 == 0o400
    deployment = DesiredDeployment(
        id="d", execution=name, name="n", action=Action.INSTALL, files=(item,), entry="model.onnx"
    )
    store = ReleaseStore(tmp_path, blobs)
    digest = documents.bundle_digest([item])
    store.lay_out(name, Manifest(deployment=deployment, generation=1, digest=digest))
    return store


def test_a_release_is_verified_to_the_last_bit(tmp_path: Path) -> None:
    store = laid_out(tmp_path, "a", b"data")
    assert store.verify("a").deployment.execution == "a"
    path = store.path("a") / "files" / "model.onnx"
    path.chmod(0o600)
    path.write_bytes(b"dat\0")
    with pytest.raises(errors.StateError, match="damaged"):
        store.verify("a")
    # The damaged blob, the same file, is noticed and removed.
    assert not BlobStore(tmp_path).has(file_ref("model.onnx", b"data"))
    (store.path("a") / "READY").unlink()
    with pytest.raises(errors.StateError, match="not complete"):
        store.verify("a")


def test_pointers_and_garbage(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        store = laid_out(tmp_path, name, name.encode())
    store.point(current="b", previous="a")
    store.collect_garbage()
    assert sorted(path.name for path in (tmp_path / "releases").iterdir()) == ["a", "b"]
    assert len(list((tmp_path / "blobs").rglob("?" * 64))) == 2
    assert list(store.bootable()) == ["b", "a"]
    store.discard("b")
    assert store.verify("b")
    store.unpoint()
    assert list(store.bootable()) == []


def test_execution_ids_never_leave_the_folder() -> None:
    for name in ("../../etc", "a/b", "", ".", "x" * 300, "a.tmp", "ü"):
        safe = folder_name(name)
        assert safe == hashlib.sha256(name.encode()).hexdigest()
    assert folder_name("e1_A-b") == "e1_A-b"


def test_one_agent_per_folder(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "s"), pytest.raises(errors.StateError, match="--state-dir"):
        StateFolder(tmp_path / "s").open()
    with StateFolder(tmp_path / "s"):
        pass


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StateError, match="--state-dir"):
        StateFolder(tmp_path / "file" / "s").open()
