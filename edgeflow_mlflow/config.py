"""The server's settings: one table, read from defaults, a TOML file, the environment and flags, in
that order, the later one winning.

`docs/configuration.md` is held against `SETTINGS` by a test. An environment variable is
`EDGEFLOW_<SECTION>_<KEY>`; lists are separated by commas there. `EDGEFLOW_CONFIG` names the file;
without it `edgeflow.toml` of the working folder is read when there is one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeflow_mlflow import errors

Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting: where it stands in the file, its default (which fixes its type), and what it does."""

    section: str
    key: str
    default: Value
    text: str

    @property
    def name(self) -> str:
        """`section.key`."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"EDGEFLOW_{self.section}_{self.key}".upper()


def _setting(name: str, default: Value, text: str) -> Setting:
    section, _, key = name.partition(".")
    return Setting(section=section, key=key, default=default, text=text)


SETTINGS: tuple[Setting, ...] = (
    _setting("server.data_dir", "", "Keys, model files and locks. Default: `edgeflow-data` beside MLflow's SQLite file, or in the working folder."),
    _setting("server.database_url", "", "Edgeflow's own database. Default: `edgeflow.db` beside MLflow's SQLite file; with PostgreSQL, MLflow's database."),
    _setting("server.auth", "", "`basic-auth` puts MLflow's users in front of operator routes; empty leaves them open to whoever may reach MLflow itself."),
    _setting("server.operators", (), "With basic-auth: users who may deploy besides MLflow's admins. Everybody else may read."),
    _setting("server.allowed_hosts", (), "Host names besides loopback and IP literals under which Edgeflow's routes answer."),
    _setting("server.behind_proxy", False, "A proxy with TLS stands in front: a bind to other than loopback is then allowed with auth."),
    _setting("server.insecure", "", "`i-know` allows a bind to other than loopback without TLS or authentication, of HTTP and of MQTT."),
    _setting("mqtt.broker", "embedded", "`embedded`, `off`, or the URL of an external broker: `mqtt://user:password@host:1883`, `mqtts://…`."),
    _setting("mqtt.host", "127.0.0.1", "Address on which the embedded broker listens; other than loopback needs `mqtt.certfile`."),
    _setting("mqtt.port", 1883, "Port of the embedded broker; 0 takes a free one."),
    _setting("mqtt.public_url", "", "What devices are told to connect to, when it differs from where the broker listens; needed with `0.0.0.0` and `::`."),
    _setting("mqtt.certfile", "", "Certificate of the embedded broker: with it, it speaks TLS."),
    _setting("mqtt.keyfile", "", "Private key of that certificate."),
    _setting("mqtt.ca_file", "", "Authority that signed an external broker's certificate."),
    _setting("devices.heartbeat_s", 15.0, "Seconds between a device's heartbeats; three missed ones make it offline."),
    _setting("devices.poll_s", 5.0, "Seconds between a device's polls while MQTT is away."),
    _setting("devices.slow_poll_s", 60.0, "Seconds between a device's polls while MQTT is there."),
    _setting("devices.document_days", 7.0, "Days for which a desired document may be started on; it is re-issued at half of that."),
    _setting("devices.offline_deadline_h", 168.0, "Hours after which an execution that no device took up is timed out."),
    _setting("devices.progress_deadline_m", 60.0, "Minutes after which an execution without any further report is timed out."),
    _setting("limits.json_body_kb", 1024, "Largest body of a request to Edgeflow, in KiB."),
    _setting("limits.mlflow_body_mb", 64, "Largest body of a request to MLflow other than an artifact upload, in MiB: a guard against bodies that MLflow would hold in memory whole. 0: none."),
    _setting("limits.model_mb", 8192, "Largest model bundle, in MiB."),
    _setting("limits.report_days", 90.0, "Days for which device reports are kept."),
    _setting("telemetry.raw_h", 24.0, "Hours for which windows of telemetry are kept as devices sent them; then they are merged by the hour."),
    _setting("telemetry.hourly_days", 14.0, "Days for which telemetry is kept by the hour; then it is merged by the day."),
    _setting("telemetry.daily_days", 365.0, "Days for which telemetry is kept by the day; then it is deleted."),
    _setting("drift.every_s", 15.0, "Seconds between two looks at windows that nobody has judged yet."),
    _setting("drift.k", 2, "So many of the newest `drift.n` evaluations of a feature must have drifted for an alarm."),
    _setting("drift.n", 3, "How many of its newest evaluations an alarm looks at, at most 20."),
    _setting("drift.pool_s", 3600.0, "How far back devices are judged together, as a fleet and as a model version, in seconds."),
    _setting("drift.pool_every_s", 300.0, "Seconds between two evaluations of devices together."),
    _setting("alerts.every_s", 5.0, "Seconds between two looks at the alert rules."),
    _setting("alerts.keep_days", 30.0, "Days for which resolved alerts, ended silences and what was sent are kept."),
    _setting("notifications.allow_private", False, "Whether receivers may have private and loopback addresses."),
    _setting("notifications.external_url", "", "Where people find this server, `https://host`: it stands in notifications."),
    _setting("monitoring.devices", False, "Whether `/metrics/devices` has series for each device: as many as there are devices."),
    _setting("registry.onnx_policy", "note", "`note` writes down whether a registered ONNX version can be deployed; `reject` refuses one that cannot."),
)  # fmt: skip
_FILE = "EDGEFLOW_CONFIG"
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_CHOICES = {
    "server.auth": ("", "basic-auth"),
    "server.insecure": ("", "i-know"),
    "registry.onnx_policy": ("note", "reject"),
}


@dataclass(frozen=True)
class Config:
    """All settings by name (`config["mqtt.port"]`), each of its default's type."""

    values: Mapping[str, Value]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, for a child process. Every one of them: a flag may
        have set back what the file says, so the child reads no file."""
        return {
            _FILE: os.devnull,
            **{setting.variable: _to_text(self.values[setting.name]) for setting in SETTINGS},
        }


def _to_text(value: Value) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _unknown(name: str, origin: str) -> errors.SettingError:
    near = difflib.get_close_matches(name, _BY_NAME, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return errors.SettingError(f"{origin}: unknown setting {name}{hint}")


def _convert(setting: Setting, value: object, origin: str) -> Value:
    kind = type(setting.default)
    try:
        if kind is tuple:
            items = value.split(",") if isinstance(value, str) else list(value)  # type: ignore[call-overload]
            converted: Value = tuple(str(item).strip() for item in items if str(item).strip())
        elif kind is bool:
            words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
            converted = words[str(value).strip().lower()]
        elif kind is str:
            if not isinstance(value, str):
                raise ValueError
            converted = value.strip()
        else:
            if isinstance(value, bool):
                raise ValueError
            converted = kind(str(value))
    except (ValueError, TypeError, KeyError) as error:
        raise errors.SettingError(f"{origin}: {setting.name} wants {kind.__name__}, not {value!r}") from error
    choices = _CHOICES.get(setting.name)
    if choices is not None and converted not in choices:
        raise errors.SettingError(
            f"{origin}: {setting.name} is one of {', '.join(map(repr, choices))}, not {converted!r}"
        )
    if isinstance(converted, int | float) and not isinstance(converted, bool) and converted < 0:
        raise errors.SettingError(f"{origin}: {setting.name} cannot be negative ({converted})")
    return converted


def _from_file(path: Path) -> dict[str, Value]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise errors.SettingError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.SettingError(f"{path} is not valid TOML: {error}") from error
    values: dict[str, Value] = {}
    for section, table in document.items():
        if not isinstance(table, dict):
            raise _unknown(section, str(path))
        for key, value in table.items():
            name = f"{section}.{key}"
            if name not in _BY_NAME:
                raise _unknown(name, str(path))
            values[name] = _convert(_BY_NAME[name], value, str(path))
    return values


def load(
    *,
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Config:
    """Read all settings; raise SettingError that names the place and the setting."""
    env = os.environ if environment is None else environment
    values: dict[str, Value] = {setting.name: setting.default for setting in SETTINGS}
    path = file or env.get(_FILE)
    if path:
        values.update(_from_file(Path(path)))
    elif Path("edgeflow.toml").is_file():
        values.update(_from_file(Path("edgeflow.toml")))
    for setting in SETTINGS:
        if setting.variable in env:
            values[setting.name] = _convert(setting, env[setting.variable], setting.variable)
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = _convert(_BY_NAME[name], value, f"--{name.partition('.')[2].replace('_', '-')}")
    return Config(values)
