"""Opening the server's folder: keys are whole or not there, rests of a crash go away."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import secrets
import threading
import time
from pathlib import Path

import pytest

from edgeflow_mlflow import config, errors
from edgeflow_mlflow.plugin import app
from edgeflow_mlflow.services import keyring, leftovers, opening


def settings(folder: Path) -> config.Config:
    flags = {"server.data_dir": str(folder), "server.database_url": f"sqlite:///{folder}/x.db"}
    return opening.resolve(config.load(environment={}, flags=flags), None)


def test_a_key_that_could_not_be_written_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(errors.SettingError, match="No space left on device; make room"):
            keyring.open_keyring(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}
    first = keyring.open_keyring(tmp_path)
    assert keyring.open_keyring(tmp_path).fleet == first.fleet
    assert keyring.open_keyring(tmp_path).derive_secret("x") == first.derive_secret("x")


@pytest.mark.parametrize("content", [b"", b"short", b"0" * 33])
def test_a_secret_of_the_wrong_length_is_refused(tmp_path: Path, content: bytes) -> None:
    keyring.open_keyring(tmp_path)
    (tmp_path / "credentials.key").write_bytes(content)
    with pytest.raises(errors.SettingError, match=f"holds {len(content)} bytes instead of 32.*remove it"):
        keyring.open_keyring(tmp_path)
    (tmp_path / "credentials.key").unlink()
    keyring.open_keyring(tmp_path)


def test_all_that_make_a_secret_at_once_get_the_same(tmp_path: Path) -> None:
    begin = threading.Barrier(8)

    def make() -> bytes:
        begin.wait()  # everybody has seen that there is none
        return secrets.token_bytes(32)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: keyring.read_or_make(path, make), [tmp_path / "some.key"] * 8))
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["some.key"]


def test_the_secret_of_sessions_is_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_FLASK_SERVER_SECRET_KEY", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    (tmp_path / "keys").mkdir()
    path = tmp_path / "keys" / "flask.key"
    path.touch(0o600)
    with pytest.raises(errors.SettingError, match=r"flask\.key holds 0 bytes"):
        app._provide_flask_secret(tmp_path)
    path.unlink()
    app._provide_flask_secret(tmp_path)
    assert os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] == path.read_text()
    assert len(path.read_text()) == 64
    assert path.stat().st_mode & 0o077 == 0


def test_rests_of_a_crash_go_away_after_a_day(tmp_path: Path) -> None:
    opening.open_state(settings(tmp_path))
    old = [
        tmp_path / "publishing-abc" / "model.onnx",
        tmp_path / "checking-abc" / "inner" / "model.onnx",
        tmp_path / "tmpab12cd_3" / "MLmodel",
        tmp_path / "blobs" / "incoming-abc",
        tmp_path / "keys" / "incoming-abc",
    ]
    kept = [
        tmp_path / "publishing-new" / "model.onnx",
        tmp_path / "blobs" / "incoming-new",
        tmp_path / "template" / "mine",
        tmp_path / "blobs" / "ab" / "abcd",
    ]
    for path in (*old, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0")
    long_ago = time.time() - 90_000
    for path in (*old, tmp_path / "template" / "mine", tmp_path / "blobs" / "ab"):
        in_folder_of_ours = path.parent.name in ("blobs", "keys")
        os.utime(
            path if in_folder_of_ours else tmp_path / path.relative_to(tmp_path).parts[0],
            (long_ago, long_ago),
        )
    opening.open_state(settings(tmp_path))
    assert [path for path in old if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert list(tmp_path.glob("*ing-abc")) == []


def test_several_workers_remove_the_same_rests_at_once(tmp_path: Path) -> None:
    long_ago = time.time() - 90_000
    for number in range(50):
        folder = tmp_path / f"publishing-{number}"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"0")
        os.utime(folder, (long_ago, long_ago))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(leftovers.remove, [tmp_path] * 4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["mysql+pymysql://u:secret@h/d", "mssql+pyodbc://u:secret@h/d", "oracle://h/d"]
)
def test_a_database_of_another_kind_is_refused_by_name(tmp_path: Path, url: str) -> None:
    for found in (
        config.load(environment={}, flags={"server.data_dir": str(tmp_path), "server.database_url": url}),
        opening.resolve(config.load(environment={}, flags={"server.data_dir": str(tmp_path)}), url),
    ):
        with pytest.raises(errors.SettingError, match="SQLite or PostgreSQL") as caught:
            opening.open_state(found)
        assert "database_url" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_an_address_of_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    flags = {"server.data_dir": str(tmp_path), "server.database_url": "edgeflow.db"}
    with pytest.raises(errors.SettingError, match="database_url"):
        opening.open_state(config.load(environment={}, flags=flags))
