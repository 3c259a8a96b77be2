"""Where settings come from, and how a wrong one is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgeflow_agent import config, errors


def test_settings_and_fields_are_the_same() -> None:
    fields = {item.name: item.default for item in dataclasses.fields(config.AgentConfig)}
    assert {item.field: item.default for item in config.SETTINGS} == fields
    assert all(item.text.endswith(".") for item in config.SETTINGS)


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[serve]\nport = 1\nqueue = 2\ntimeout_s = 3\n")
    environ = {"EDGEFLOW_AGENT_SERVE_PORT": "10", "EDGEFLOW_AGENT_SERVE_QUEUE": "20"}
    loaded = config.load(file, environ=environ, overrides={"port": 100, "host": None})
    assert (loaded.port, loaded.queue, loaded.timeout_s, loaded.host) == (100, 20, 3.0, "127.0.0.1")


def test_the_file_in_the_working_folder_is_found(tmp_path: Path) -> None:
    Path("edgeflow-agent.toml").write_text('[agent]\ntarget = "robot-1"\n')
    assert config.load(environ={}).target == "robot-1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[serve]\nprot = 1\n", "serve.port"),
        ("[sever]\nurl = 'http://x'\n", "server.url"),
        ("[agent]\nport = 1\n", "serve.port"),
        ("port = 1\n", "unknown setting 'port'"),
        ("[serve]\nport = 'x'\n", "whole number"),
        ("[serve]\nport = true\n", "whole number"),
        ("[serve]\nport = 1.5\n", "whole number"),
        ("[serve]\nport = 70000\n", "at most 65535"),
        ("[serve]\ntimeout_s = nan\n", "serve.timeout_s"),
        ("[serve]\ntimeout_s = -1\n", "serve.timeout_s"),
        ("[server]\nurl = 'ftp://x'\n", "http://"),
        ("[server]\nmqtt = 'host:1883'\n", "mqtt://"),
        ("[agent]\nlog_level = 'loud'\n", "log_level"),
        ("[agent\n", "TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_a_hint(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(errors.ConfigError, match=told.replace("[", r"\[")):
        config.load(file, environ={})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="cannot read"):
        config.load(tmp_path / "none.toml", environ={})
