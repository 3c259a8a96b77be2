"""The agent's settings: what can be set, where it may be set, and what holds when nothing is set.

A flag of the command line beats the environment, which beats the file, which beats the default.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeflow_agent import errors

ENVIRONMENT_PREFIX = "EDGEFLOW_AGENT_"
DEFAULT_FILES = (Path("edgeflow-agent.toml"), Path("/etc/edgeflow/agent.toml"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting. `key` is its name in the file within `section`; `field` its name in AgentConfig."""

    section: str
    key: str
    field: str
    type: type
    default: Any
    text: str
    minimum: float | None = None

    @property
    def name(self) -> str:
        """The full name, as documentation writes it."""
        return f"{self.section}.{self.key}"

    @property
    def environment(self) -> str:
        """The environment variable that sets it."""
        return f"{ENVIRONMENT_PREFIX}{self.section}_{self.key}".upper()


def _setting(
    name: str, kind: type, default: Any, text: str, *, field: str = "", minimum: float | None = None
) -> Setting:
    section, _, key = name.partition(".")
    return Setting(
        section=section,
        key=key,
        field=field or key,
        type=kind,
        default=default,
        text=text,
        minimum=minimum,
    )


SETTINGS: tuple[Setting, ...] = (
    _setting("agent.target", str, "", "Name of this device; enrolment writes it, so it is rarely set here."),
    _setting("agent.state_dir", Path, Path("edgeflow-agent-state"), "Folder of everything that is kept."),
    _setting("agent.log_level", str, "info", "How much is logged: debug, info, warning or error."),
    _setting(
        "agent.can_update",
        str,
        "",
        "Command that says whether a new model may take over now: exit code 0 is yes; empty: always.",
    ),
    _setting(
        "agent.can_update_retry_s", float, 15.0, "How long after a no that command is run again.", minimum=0.1
    ),
    _setting(
        "server.url",
        str,
        "",
        "Address of the Edgeflow server; empty: the one of the enrolment, or standalone without one.",
        field="server_url",
    ),
    _setting(
        "server.mqtt",
        str,
        "",
        "Address of the broker, mqtt://host:1883 or mqtts://host:8883; empty: what the server says; "
        "off: never MQTT, only HTTP.",
        field="mqtt",
    ),
    _setting("server.ca_file", str, "", "Certificates to trust for https and mqtts; empty: the system's."),
    _setting(
        "server.timeout_s",
        float,
        10.0,
        "Patience with one answer of the server.",
        field="link_timeout_s",
        minimum=0.1,
    ),
    _setting(
        "server.download_gap_s", float, 30.0, "Silence after which a download is taken up anew.", minimum=0.1
    ),
    _setting(
        "server.resend_s", float, 10.0, "When a report that nobody confirmed is sent again.", minimum=0.1
    ),
    _setting(
        "server.credential_days",
        float,
        30.0,
        "Days after which this device exchanges its credential for a new one; 0: never. A server with an external "
        "broker asks for none.",
        minimum=0,
    ),
    _setting("serve.host", str, "127.0.0.1", "Address that answers inference requests."),
    _setting("serve.port", int, 8080, "Port that answers inference requests; 0: any free one.", minimum=0),
    _setting(
        "serve.max_body_mb", float, 32.0, "Largest request body; above it the answer is 413.", minimum=0.001
    ),
    _setting(
        "serve.queue", int, 64, "Requests that may wait for a worker; above it the answer is 429.", minimum=0
    ),
    _setting(
        "serve.timeout_s", float, 30.0, "Deadline of one inference; after it the answer is 504.", minimum=0.01
    ),
    _setting(
        "serve.threads", int, 1, "Threads inside one run of a model, unless its deployment says.", minimum=1
    ),
    _setting(
        "serve.providers",
        tuple,
        (),
        "Execution providers in order, as `cuda,cpu`, unless the deployment says; empty: what this device has.",
    ),
    _setting(
        "serve.compile",
        bool,
        False,
        "Keep the optimised form of each model on disk: the next load takes half of the memory and time.",
    ),
    _setting(
        "serve.tracking_uri",
        str,
        "",
        "Where `serve models:/name/3` fetches from: the tracking server of MLflow; empty: MLFLOW_TRACKING_URI.",
    ),
    _setting(
        "serve.unix_socket", str, "", "Path of a socket to answer on instead of host and port; empty: none."
    ),
    _setting(
        "serve.max_concurrent", int, 0, "Runs at the same time; 0: as many as there are cores.", minimum=0
    ),
    _setting("serve.header_timeout_s", float, 10.0, "Patience with the head of a request.", minimum=0.05),
    _setting("serve.body_timeout_s", float, 30.0, "Patience with the body of a request.", minimum=0.05),
    _setting("serve.idle_timeout_s", float, 75.0, "How long an idle connection is kept.", minimum=0.05),
    _setting("serve.max_connections", int, 2048, "Connections at the same time.", minimum=1),
    _setting(
        "serve.drain_s", float, 10.0, "How long a stop waits for requests that are being answered.", minimum=0
    ),
    _setting(
        "store.max_model_mb", int, 4096, "Largest model that is accepted, all its files together.", minimum=1
    ),
    _setting("store.keep_free_mb", int, 256, "Disk space that a download leaves free.", minimum=0),
    _setting(
        "store.spool_max_mb",
        float,
        16.0,
        "Disk space for reports that the server has not stored.",
        minimum=0.01,
    ),
    _setting(
        "telemetry.window_s",
        float,
        0.0,
        "Length of a window of telemetry; 0: what the deployment says (60 s).",
        field="telemetry_window_s",
        minimum=0,
    ),
    _setting(
        "telemetry.cpu_share",
        float,
        0.002,
        "Share of one core that looking at requests may take; 0: inputs and outputs are not looked at.",
        field="telemetry_cpu_share",
        minimum=0,
    ),
    _setting(
        "telemetry.learn",
        int,
        2000,
        "Rows from which a model without a baseline gets one on this device; 0: it gets none.",
        field="telemetry_learn",
        minimum=0,
    ),
    _setting(
        "telemetry.capture_max_mb",
        float,
        64.0,
        "Disk space for requests that a deployment asks to keep whole; 0: this device keeps none.",
        field="telemetry_capture_max_mb",
        minimum=0,
    ),
    _setting(
        "telemetry.spool_max_mb",
        float,
        32.0,
        "Disk space for windows that the server has not stored; above it the oldest are dropped and counted.",
        field="telemetry_spool_max_mb",
        minimum=0.01,
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Every setting of the agent, checked. SETTINGS says what each one means."""

    target: str = ""
    state_dir: Path = Path("edgeflow-agent-state")
    log_level: str = "info"
    can_update: str = ""
    can_update_retry_s: float = 15.0
    server_url: str = ""
    mqtt: str = ""
    ca_file: str = ""
    link_timeout_s: float = 10.0
    download_gap_s: float = 30.0
    resend_s: float = 10.0
    credential_days: float = 30.0
    host: str = "127.0.0.1"
    port: int = 8080
    max_body_mb: float = 32.0
    queue: int = 64
    timeout_s: float = 30.0
    threads: int = 1
    providers: tuple[str, ...] = ()
    compile: bool = False
    tracking_uri: str = ""
    unix_socket: str = ""
    max_concurrent: int = 0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    max_connections: int = 2048
    drain_s: float = 10.0
    max_model_mb: int = 4096
    keep_free_mb: int = 256
    spool_max_mb: float = 16.0
    telemetry_window_s: float = 0.0
    telemetry_cpu_share: float = 0.002
    telemetry_learn: int = 2000
    telemetry_capture_max_mb: float = 64.0
    telemetry_spool_max_mb: float = 32.0


def load(
    file: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> AgentConfig:
    """The settings from file, environment and `overrides` (by field name; None means not given).

    Raise ConfigError that names the setting and where it was set.
    """
    values: dict[str, Any] = {}
    path = file or next((item for item in DEFAULT_FILES if item.is_file()), None)
    if path is not None:
        values.update(_from_file(path))
    values.update(_from_environment(os.environ if environ is None else environ))
    values.update({key: value for key, value in (overrides or {}).items() if value is not None})
    config = AgentConfig(**values)
    _check(config)
    return config


def _from_file(path: Path) -> dict[str, Any]:
    import tomllib  # the devices without a file save its memory

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise errors.ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{path} is not valid TOML: {error}") from error
    known = {item.name: item for item in SETTINGS}
    values: dict[str, Any] = {}
    for section, table in data.items():
        if not isinstance(table, dict):
            raise errors.ConfigError(f"{path}: {_unknown(section, known)}")
        for key, value in table.items():
            setting = known.get(f"{section}.{key}")
            if setting is None:
                raise errors.ConfigError(f"{path}: {_unknown(f'{section}.{key}', known)}")
            values[setting.field] = _convert(setting, value, f"{path}: {setting.name}")
    return values


def _unknown(name: str, known: Mapping[str, Setting]) -> str:
    import difflib  # only somebody who mistyped needs it

    # The right key in the wrong section is nearer than any key that merely looks alike.
    near = [item for item in known if item.endswith(f".{name.rpartition('.')[2]}")][:1]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
    return f"unknown setting {name!r}; {hint}"


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        setting.field: _convert(setting, environ[setting.environment], setting.environment)
        for setting in SETTINGS
        if setting.environment in environ
    }


_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
_WANTED = {
    str: "text",
    Path: "a path",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of words",
}


def _convert(setting: Setting, value: Any, where: str) -> Any:
    refusal = errors.ConfigError(f"{where} must be {_WANTED[setting.type]}, not {value!r}")
    if setting.type is bool:
        found = value if isinstance(value, bool) else _FLAGS.get(str(value).lower())
        if found is None:
            raise refusal
        return found
    if setting.type is tuple:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise refusal
        return tuple(word.strip() for word in words if word.strip())
    if isinstance(value, bool):
        raise refusal
    if setting.type in (str, Path):
        if not isinstance(value, str):
            raise refusal
        return setting.type(value)
    if setting.type is int and isinstance(value, float):
        raise refusal
    try:
        return setting.type(value)
    except (TypeError, ValueError) as error:
        raise refusal from error


def _check(config: AgentConfig) -> None:
    for setting in SETTINGS:
        value = getattr(config, setting.field)
        # Written so that NaN is refused as well.
        if setting.minimum is not None and not value >= setting.minimum:
            raise errors.ConfigError(f"{setting.name} must be at least {setting.minimum:g}, not {value}")
    if config.port > 65535:
        raise errors.ConfigError(f"serve.port must be at most 65535, not {config.port}")
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise errors.ConfigError(
            f"agent.log_level must be debug, info, warning or error, not {config.log_level!r}"
        )
    try:
        shlex.split(config.can_update)
    except ValueError as error:
        raise errors.ConfigError(
            f"agent.can_update is no command line ({error}): {config.can_update!r}; close every quote"
        ) from error
    if config.server_url and not config.server_url.startswith(("http://", "https://")):
        raise errors.ConfigError(f"server.url must begin with http:// or https://, not {config.server_url!r}")
    if config.mqtt not in ("", "off") and not config.mqtt.startswith(("mqtt://", "mqtts://")):
        raise errors.ConfigError(
            f"server.mqtt must begin with mqtt:// or mqtts://, or be 'off', not {config.mqtt!r}"
        )
