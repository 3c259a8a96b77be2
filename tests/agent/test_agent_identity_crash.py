"""Every state that a power cut may leave of who a device is: never a damaged identity, never one older than
was promised, and no token that is used up without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edgeflow_agent import errors
from edgeflow_agent.store import durable
from edgeflow_agent.store.identity import CurrentIdentity, Identity, IdentityFile
from edgeflow_agent.testing import FakeServer
from edgeflow_agent.wire.documents import EnrolRequest
from tests.agent.conftest import enrol
from tests.agent.power_cuts import Mark, Recorder, Sync, Tree, build, walk


class Recorded:
    """Enrolment and two changes of the credential, operation by operation."""

    def __init__(self, state_dir: Path, patch: pytest.MonkeyPatch) -> None:
        state_dir.mkdir()
        server = FakeServer()
        self.recorder = recorder = Recorder(state_dir)
        self.identities: list[Identity] = []
        self.asked: list[EnrolRequest] = []
        begin, finish, write = IdentityFile.begin_enrolment, IdentityFile.finish_enrolment, IdentityFile.write

        def asked(file: IdentityFile, request: EnrolRequest) -> EnrolRequest:
            self.asked.append(begin(file, request))
            recorder.mark("asked")
            return self.asked[-1]

        def finished(file: IdentityFile, identity: Identity) -> None:
            finish(file, identity)
            recorder.mark("finished")

        def written(file: IdentityFile, identity: Identity) -> None:
            self.identities.append(identity)
            write(file, identity)
            recorder.mark("written", len(self.identities))

        patch.setattr(IdentityFile, "begin_enrolment", asked)
        patch.setattr(IdentityFile, "finish_enrolment", finished)
        patch.setattr(IdentityFile, "write", written)
        recorder.install(patch)
        try:
            enrol(server, state_dir)
            current = CurrentIdentity(IdentityFile(state_dir), self.identities[0])
            old = current.now.credential
            current.change(credential="new", previous_credential=old)
            current.change(credential=old, previous_credential="new")
        finally:
            server.stop()
            recorder.close()

    def sites(self) -> list[str]:
        return sorted({item.site for item in self.recorder.operations if isinstance(item, Sync)})

    def violations(self, place: Path, without: str = "") -> Iterator[str]:
        """For every point of the recording; `without` takes out the syncs of that site."""
        asked = finished = False
        kept = number_of_trees = 0
        for number, operation, trees in walk(self.recorder, without=without):
            for tree in trees:
                number_of_trees += 1
                problem = self._judge(tree, place / str(number_of_trees), asked, finished, kept)
                if problem:
                    yield f"before operation {number} ({operation}): {problem}"
            if isinstance(operation, Mark):
                asked, finished = asked or operation.what == "asked", finished or operation.what == "finished"
                kept = operation.value if operation.what == "written" else kept
        assert number_of_trees > 50

    def _judge(self, tree: Tree, place: Path, asked: bool, finished: bool, kept: int) -> str:
        build(tree, place)
        durable.sweep(place)
        file = IdentityFile(place)
        try:
            identity = file.read()
        except errors.StateError as error:
            return str(error)
        if kept and identity not in self.identities[kept - 1 :]:
            return f"the identity is not number {kept} or a later one: {identity}"
        if identity is not None and identity not in self.identities:
            return f"nobody wrote this identity: {identity}"
        if asked and identity is None and self._asks_again(file) != self.asked[0]:
            return "the question is lost before its answer came: the token is burnt"
        if finished and any(self.asked[0].token.encode() in path.read_bytes() for path in place.iterdir()):
            return "the token is still there"
        return ""

    def _asks_again(self, file: IdentityFile) -> EnrolRequest:
        return file.begin_enrolment(msgspec.structs.replace(self.asked[0], idempotency_key="another"))


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    with pytest.MonkeyPatch.context() as patch:
        found = Recorded(tmp_path / "state", patch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield found


def test_no_power_cut_costs_a_device_its_identity(recorded: Recorded, tmp_path: Path) -> None:
    assert len(recorded.identities) == 3
    assert list(recorded.violations(tmp_path / "judged")) == []


def test_every_sync_is_needed(recorded: Recorded, tmp_path: Path) -> None:
    needless = [
        site
        for number, site in enumerate(recorded.sites())
        if next(recorded.violations(tmp_path / str(number), without=site), None) is None
    ]
    assert needless == []
