"""The command line and the client are two faces of the API: no route is missing from either."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from edgeflow_mlflow.api.routing import Policy, Route
from edgeflow_mlflow.api.table import ROUTES
from edgeflow_mlflow.client import Client

CLI = Path(__file__).parents[2] / "edgeflow_mlflow" / "cli"
# What only machines ask: scrapers, and whoever makes clients.
_FOR_MACHINES = {"openapi", "metrics", "device_metrics"}
# Devices have a client of their own.
PEOPLE = [route for route in ROUTES if route.policy is not Policy.DEVICE and route.rule != "/enroll"]


class _StopError(Exception):
    """The call was seen."""


class _Recording(Client):
    """Notes what is called, and goes no further."""

    def __init__(self) -> None:
        super().__init__("http://nowhere")
        self.calls: list[tuple[str, str]] = []

    def _content(self, method: str, path: str, body: msgspec.Struct | None) -> bytes:
        self.calls.append((method, path.partition("?")[0]))
        raise _StopError


def _arguments(function: Any) -> dict[str, Any]:
    """Something for every argument without a default."""
    hints = get_type_hints(function)
    found: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        kind = hints.get(name)
        if kind == int | None:
            found[name] = 7
        if (
            parameter.kind is inspect.Parameter.VAR_KEYWORD
            or parameter.default is not inspect.Parameter.empty
        ):
            continue
        if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
            found[name] = None  # it is only sent on
        else:
            found[name] = {int: 7, float: 1.0, dict: {}}.get(getattr(kind, "__origin__", kind), "seven")
    return found


def _calls() -> Iterator[tuple[str, str, str]]:
    for name, function in inspect.getmembers(Client, inspect.isfunction):
        if name.startswith("_"):
            continue
        client = _Recording()
        try:
            result = getattr(client, name)(**_arguments(function))
            if inspect.isgenerator(result):
                next(result)
        except (_StopError, AttributeError):  # some look into what they are given, or into an answer
            pass
        for method, path in client.calls:
            yield name, method, path


CALLS = list(_calls())


def _methods_for(route: Route) -> set[str]:
    pattern = re.compile(re.sub(r"<\w+>", "[^/]+", route.rule))
    found = {name for name, method, path in CALLS if method == route.method and pattern.fullmatch(path)}
    plain = {name for name, method, path in CALLS if method == route.method and path == route.rule}
    return plain or found


@pytest.mark.parametrize("route", PEOPLE, ids=lambda route: f"{route.method} {route.rule}")
def test_no_route_is_missing_from_the_client_or_the_command_line(route: Route) -> None:
    methods = _methods_for(route)
    assert methods, "no method of Client asks this route"
    if methods & _FOR_MACHINES:
        return
    text = "\n".join(path.read_text() for path in CLI.glob("*.py"))
    typed = {name for name in methods if re.search(rf"\.{name}\(", text)}
    assert typed, f"no command uses {' or '.join(sorted(methods))}"


def test_every_method_of_the_client_asks_a_route_that_exists() -> None:
    patterns = [(route.method, re.compile(re.sub(r"<\w+>", "[^/]+", route.rule))) for route in ROUTES]
    for name, method, path in CALLS:
        assert any(method == verb and pattern.fullmatch(path) for verb, pattern in patterns), (name, path)


def test_the_reference_of_the_command_line_is_made_from_it() -> None:
    # In a process of its own: a command keeps the help option that its first caller in a process gave it.
    script = CLI.parents[1] / "scripts" / "cli_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
