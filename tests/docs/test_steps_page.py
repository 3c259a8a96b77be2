"""docs/steps.md names every step with every parameter, its default and its words; its examples are sound."""

from __future__ import annotations

import ast
import json
import re
from typing import Any, get_args

import msgspec
import pytest

from edgeflow_agent import steps
from edgeflow_agent.steps import document
from tests.docs.test_docs import section, text_of

PAGE = "docs/steps.md"
KINDS: dict[str, type[msgspec.Struct]] = {**document.BEFORE, **document.AFTER}
# The page writes a default in words where JSON has none, or where it is a fraction.
IN_WORDS: dict[tuple[str, str], str] = {
    ("normalise", "scale"): "`1/255`",
    ("normalise", "mean"): "`[0]`, `[1]`",
    ("normalise", "std"): "`[0]`, `[1]`",
    ("layout", "dtype"): "as it is",
    ("feed", "dtype"): "",
    ("labels", "threshold"): "none",
    ("top_k", "threshold"): "none",
    ("detections", "size"): "none",
    ("frame", "longer"): '`"cut"`, `"pad"`',
    ("frame", "shorter"): '`"cut"`, `"pad"`',
}


def parameters(word: str) -> dict[str, tuple[str, str]]:
    """Default and explanation of each parameter in the table of a step."""
    found = {}
    for line in section(PAGE, f"### `{word}`").splitlines():
        if line.startswith("| `"):
            names, default, what = (cell.strip() for cell in line.split("|")[1:-1])
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", names), (default, what))
    return found


@pytest.mark.parametrize("word", KINDS)
def test_a_step_is_documented_with_its_parameters_and_defaults(word: str) -> None:
    documented = parameters(word)
    fields = {item.name: item for item in msgspec.structs.fields(KINDS[word])}
    assert documented.keys() == fields.keys()
    for name, item in fields.items():
        default, what = documented[name]
        if name in ("output", "name") or what.startswith("as for"):
            continue  # said once, for all steps after the graph
        if item.required:
            assert default == "", name
        else:
            value = item.default if item.default is not msgspec.NODEFAULT else item.default_factory()
            assert default == IN_WORDS.get((word, name), f"`{json.dumps(msgspec.to_builtins(value))}`"), name


@pytest.mark.parametrize("word", KINDS)
def test_the_words_that_a_parameter_takes_are_documented(word: str) -> None:
    text = section(PAGE, f"### `{word}`")
    for item in msgspec.structs.fields(KINDS[word]):
        words = [value for value in get_args(item.type) if isinstance(value, str) and value]
        # Types of numbers are numpy's own names where a step takes all of them.
        if item.name != "activation" and len(words) < 8:
            assert [value for value in words if f'"{value}"' not in text] == [], item.name


def test_every_step_stands_in_the_tables_in_order() -> None:
    for heading, kinds in (("## Before the graph", document.BEFORE), ("## After the graph", document.AFTER)):
        overview = section(PAGE, heading).partition("\n###")[0]
        assert re.findall(r"^\| `(\w+)` \|", overview, re.MULTILINE) == list(kinds)
        assert re.findall(r"^### `(\w+)`", section(PAGE, heading), re.MULTILINE) == list(kinds)


def test_the_example_of_the_page_is_a_pipeline() -> None:
    [code] = re.findall(
        r"^```python\n(import edgeflow_mlflow.*?)^```", text_of(PAGE), re.MULTILINE | re.DOTALL
    )
    call: Any = ast.parse(code).body[-1]
    [declared] = [item.value for item in call.value.keywords if item.arg == "steps"]
    assert steps.load(ast.literal_eval(declared)).takes_image
