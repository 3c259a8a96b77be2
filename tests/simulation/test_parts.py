"""The parts around the device: chance, the state folder, the command's words, the table."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from rich.console import Console

from edgeflow_agent import errors
from edgeflow_agent.testing import FakeServer
from edgeflow_mlflow.cli import simulate
from edgeflow_mlflow.simulation import chance, enrolling, picture
from edgeflow_mlflow.simulation.folder import FleetFolder, Kept
from edgeflow_mlflow.simulation.loop import Loop
from edgeflow_mlflow.simulation.web import RefusedError, Web
from tests.simulation.world import AUTHORITY, World, wish


def test_chance_is_fair_and_repeats_itself() -> None:
    names = [f"sim-{number:04d}" for number in range(2000)]
    bad = [name for name in names if chance.is_bad(1, name, "digest", 0.05)]
    assert 60 < len(bad) < 140
    assert bad == [name for name in names if chance.is_bad(1, name, "digest", 0.05)]
    assert bad != [name for name in names if chance.is_bad(1, name, "another", 0.05)]
    for age in (0.0, 45.0, 1000.0):
        assert 140 < sum(chance.is_away(1, name, age, 0.1) for name in names) < 260
    assert not any(chance.is_away(1, name, 5, 0.0) for name in names)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (simulate.share, "5%", 0.05),
        (simulate.share, "0.2", 0.2),
        (simulate.share, "100%", 1.0),
        (simulate.share, "101%", None),
        (simulate.share, "many", None),
        (simulate.share, "nan", None),
        (simulate.span, "0.5..3", (0.5, 3.0)),
        (simulate.span, "2", (2.0, 2.0)),
        (simulate.span, "3..1", None),
        (simulate.span, "-1", None),
    ],
)
def test_words_of_the_command(read: Callable[[str], object], text: str, value: object) -> None:
    if value is None:
        with pytest.raises(click.BadParameter):
            read(text)
    else:
        assert read(text) == value


def test_a_folder_is_private_and_used_once(tmp_path: Path) -> None:
    folder = FleetFolder(tmp_path / "fleet")
    with pytest.raises(errors.StateError, match="another simulation"):
        FleetFolder(tmp_path / "fleet")
    assert stat.S_IMODE((tmp_path / "fleet" / "fleet.db").stat().st_mode) == 0o600
    keys = folder.enrolments(["sim-0001", "sim-0002"])
    assert folder.enrolments(["sim-0001"]) == {"sim-0001": keys["sim-0001"]}, "asked again, it is the same"
    assert folder.load(["sim-0001"]) == {}
    world = World()
    world.advance(2)
    world.stores = False
    world.offer(wish(1))
    world.advance(3)
    folder.enrolled([AUTHORITY.identity()])
    folder.keep([Kept(world.device.identity, world.device.keep())])
    folder.close()
    again = FleetFolder(tmp_path / "fleet")
    assert again.load(["sim-0001", "sim-0002"]) == {
        "sim-0001": Kept(AUTHORITY.identity(), world.device.memory)
    }
    again.close()


def test_enrolment_believes_only_the_server_of_the_token(tmp_path: Path) -> None:
    server, other = FakeServer(target="sim-0001"), FakeServer()
    folder = FleetFolder(tmp_path / "fleet")
    stopping = threading.Event()

    def enrol(token: str) -> dict[str, Kept]:
        return enrolling.enrol(
            Web(server.url), folder, ["sim-0001"], token, on_progress=lambda count: None, stopping=stopping
        )

    try:
        with pytest.raises(errors.ConfigError, match="edgeflow tokens create --uses 1"):
            enrol("")
        with pytest.raises(errors.TransferError, match="refuses the token"):
            enrol(other.token())
        server.root, root = other.root, server.root
        token = server.token()
        server.root = root
        with pytest.raises(errors.TransferError):
            enrol(token)
        known = enrol(server.token())
        assert known["sim-0001"].identity.credential == server.credential
        assert enrol("") == known, "a second time no token is needed"
    finally:
        folder.close()
        server.stop()
        other.stop()


def test_files_are_taken_up_where_they_broke_off() -> None:
    server = FakeServer()
    web = Web(server.url)
    (file,) = server.install(1, {"model.onnx": bytes(range(256)) * 4000}).files
    try:
        server.blob_cut, server.blob_cuts_left = 300_000, 2
        assert web.fetch(server.credential, file, lambda: False)
        ranges = [headers.get("range") for _, path, headers in server.requests if "/blobs/" in path]
        assert ranges == [None, "bytes=300000-", "bytes=600000-"]
        assert not web.fetch(server.credential, file, lambda: True)
        server.tamper = lambda data: data[:-1] + b"?"
        with pytest.raises(errors.ContractError):
            web.fetch(server.credential, file, lambda: False)
        with pytest.raises(RefusedError) as refused:
            web.fetch("efd1_wrong", file, lambda: False)
        assert refused.value.status == 401
    finally:
        server.stop()


def test_the_loop_survives_what_it_calls_and_keeps_the_last_timer() -> None:
    loop = Loop()
    fired: list[int] = []

    def fire(owner: int) -> None:
        fired.append(owner)
        raise RuntimeError("a mishap of one device")

    loop.at(1, 0.0)
    loop.at(2, loop.now() + 3600)
    loop.at(2, 0.0)  # the newest counts
    loop.at(3, 0.0)
    loop.at(3, float("inf"))
    threading.Thread(target=lambda: loop.hand_over(lambda: fired.append(9))).start()
    while len(fired) < 3:
        loop.turn(fire)
    assert sorted(fired) == [1, 2, 9]
    loop.close()


def test_the_table_shows_a_fleet() -> None:
    world = World(bad=0.0)
    world.advance(2)
    world.offer(wish(1))
    world.advance(30)
    seen = picture.look([world.device], seconds=30, sent=10)
    assert (seen.serving, seen.connected, seen.states) == (1, 1, {"deployed": 1})
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(simulate._table(seen))
    text = console.export_text()
    assert "serve iris/one" in text
    assert "state deployed" in text
