"""Settings: later places win, and what is wrong is named with its place and the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeflow_mlflow import config, errors
from edgeflow_mlflow.api.origin import is_loopback
from edgeflow_mlflow.plugin.app import check_exposure
from edgeflow_mlflow.plugin.compat import listening_host, plain_uri
from edgeflow_mlflow.services import opening


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "edgeflow.toml"
    file.write_text('[mqtt]\nport = 1\nhost = "a"\nbroker = "off"\n[server]\noperators = ["x", "y"]\n')
    found = config.load(
        file=file,
        environment={"EDGEFLOW_MQTT_PORT": "2", "EDGEFLOW_MQTT_HOST": "b"},
        flags={"mqtt.port": 3, "mqtt.host": None},
    )
    assert (found["mqtt.port"], found["mqtt.host"], found["mqtt.broker"]) == (3, "b", "off")
    assert found["server.operators"] == ("x", "y")
    assert found["devices.poll_s"] == 5.0


def test_settings_travel_to_the_hub_by_the_environment() -> None:
    flags = {"mqtt.port": 0, "server.operators": "a,b", "devices.poll_s": 0.5, "server.behind_proxy": True}
    found = config.load(environment={}, flags=flags)
    assert config.load(environment=found.environment()).values == found.values


def test_a_flag_that_sets_a_default_again_reaches_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = tmp_path / "named.toml"
    named.write_text('[mqtt]\nbroker = "off"\nport = 1884\n[server]\noperators = ["x"]\n')
    (tmp_path / "edgeflow.toml").write_text("[mqtt]\nnot_even_a_setting = 1\n")
    found = config.load(
        file=named,
        environment={},
        flags={"mqtt.broker": "embedded", "mqtt.port": 1883, "server.operators": ""},
    )
    assert (found["mqtt.broker"], found["mqtt.port"], found["server.operators"]) == ("embedded", 1883, ())
    inherited = {"EDGEFLOW_CONFIG": str(named), "EDGEFLOW_MQTT_PORT": "1885"}
    assert config.load(environment={**inherited, **found.environment()}).values == found.values


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[mqtt]\nprot = 1\n", "did you mean mqtt.port"),
        ("[mqtt]\nport = 'x'\n", "wants int"),
        ("[mqtt]\nport = true\n", "wants int"),
        ("[mqtt]\nport = -1\n", "cannot be negative"),
        ("[server]\nauth = 'none'\n", "is one of"),
        ("[server]\nbehind_proxy = 'perhaps'\n", "wants bool"),
        ("port = 3\n", "unknown setting port"),
        ("[mqtt\n", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "edgeflow.toml"
    file.write_text(content)
    with pytest.raises(errors.SettingError, match=words) as caught:
        config.load(file=file, environment={})
    assert str(file) in str(caught.value)


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingError, match="cannot read"):
        config.load(environment={"EDGEFLOW_CONFIG": str(tmp_path / "gone.toml")})


def test_everything_lies_beside_mlflows_sqlite_file(tmp_path: Path) -> None:
    found = opening.resolve(config.load(environment={}), f"sqlite:///{tmp_path}/mlflow.db")
    assert found["server.database_url"] == f"sqlite:///{tmp_path}/edgeflow.db"
    assert found["server.data_dir"] == f"{tmp_path}/edgeflow-data"
    found = opening.resolve(config.load(environment={}), "postgresql://u:p@h/d")
    assert found["server.database_url"] == "postgresql+psycopg://u:p@h/d"


def test_keys_of_another_server_are_refused(tmp_path: Path) -> None:
    flags = {"server.data_dir": str(tmp_path / "a"), "server.database_url": f"sqlite:///{tmp_path}/x.db"}
    opening.open_state(opening.resolve(config.load(environment={}, flags=flags), None))
    flags["server.data_dir"] = str(tmp_path / "b")
    with pytest.raises(errors.SettingError, match="copy the folder"):
        opening.open_state(opening.resolve(config.load(environment={}, flags=flags), None))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    flags = {"server.data_dir": str(tmp_path), "server.database_url": f"sqlite:///{tmp_path}/x.db"}
    settings = opening.resolve(config.load(environment={}, flags=flags), None)
    opening.open_state(settings)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "keys").glob("*.key"))
    (tmp_path / "keys" / "root.key").chmod(0o644)
    with pytest.raises(errors.SettingError, match="chmod 600"):
        opening.open_state(settings)


def test_listening_to_the_network_must_be_asked_for() -> None:
    def settings(**flags: object) -> config.Config:
        return config.load(
            environment={}, flags={key.replace("__", "."): item for key, item in flags.items()}
        )

    check_exposure(settings(), "127.0.0.1")
    check_exposure(settings(), "::1")
    check_exposure(settings(server__insecure="i-know"), "0.0.0.0")
    check_exposure(settings(server__auth="basic-auth", server__behind_proxy=True), "0.0.0.0")
    for bad in (settings(), settings(server__auth="basic-auth"), settings(server__behind_proxy=True)):
        with pytest.raises(errors.SettingError, match="refusing to listen"):
            check_exposure(bad, "0.0.0.0")
    assert not is_loopback("robot.local")


@pytest.mark.parametrize("host", ["10.0.0.5", "robot.local", "0.0.0.0", "::", ""])
def test_the_broker_must_be_asked_to_listen_to_the_network(host: str) -> None:
    def settings(**flags: object) -> config.Config:
        given = {key.replace("__", "."): item for key, item in flags.items()}
        return config.load(environment={}, flags={"mqtt.host": host, **given})

    url = {"mqtt__public_url": "mqtts://edgeflow.example:8883"}
    proxy = {"server__auth": "basic-auth", "server__behind_proxy": True}
    for refused in (settings(**url), settings(**url, **proxy)):
        with pytest.raises(errors.SettingError, match="without TLS"):
            check_exposure(refused, "127.0.0.1")
    check_exposure(settings(**url, mqtt__certfile="c.pem"), "127.0.0.1")
    check_exposure(settings(**url, server__insecure="i-know"), "127.0.0.1")
    for elsewhere in ("off", "mqtts://user:secret@broker.example"):
        check_exposure(settings(mqtt__broker=elsewhere), "127.0.0.1")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_devices_are_never_told_to_connect_to_every_address(host: str) -> None:
    flags = {"mqtt.host": host, "server.insecure": "i-know", "mqtt.certfile": "c.pem"}
    with pytest.raises(errors.SettingError, match="EDGEFLOW_MQTT_PUBLIC_URL"):
        check_exposure(config.load(environment={}, flags=flags), "127.0.0.1")
    flags["mqtt.public_url"] = "mqtts://edgeflow.example:8883"
    check_exposure(config.load(environment={}, flags=flags), "127.0.0.1")


@pytest.mark.parametrize(
    ("words", "host"),
    [
        (["uvicorn"], "127.0.0.1"),
        (["uvicorn", "--host", "0.0.0.0", "--port", "1"], "0.0.0.0"),
        (["uvicorn", "--host=::"], "::"),
        (["gunicorn", "-b", "0.0.0.0:5000"], "0.0.0.0"),
        (["gunicorn", "--bind=[::]:5000"], "::"),
        (["gunicorn", "-b", "unix:/tmp/x"], "127.0.0.1"),
    ],
)
def test_the_address_is_read_from_the_command_line(words: list[str], host: str) -> None:
    assert listening_host(words) == host


def test_our_scheme_comes_off() -> None:
    assert plain_uri("edgeflow+sqlite:///x.db") == "sqlite:///x.db"
    assert plain_uri("edgeflow:postgresql+psycopg://h/d") == "postgresql+psycopg://h/d"
    assert plain_uri("sqlite:///x.db") == "sqlite:///x.db"
