"""The documentation says what the code does: whatever can be set, called, sent or answered stands in it."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edgeflow_agent import cli as agent_cli
from edgeflow_agent import config as agent_config
from edgeflow_agent.core import plan
from edgeflow_agent.inference import metrics as device_metrics
from edgeflow_agent.inference import predictor, slot
from edgeflow_agent.inference import routes as device_routes
from edgeflow_agent.inference.observing import Observer
from edgeflow_agent.wire import documents, states, telemetry, topics
from edgeflow_mlflow import config as server_config
from edgeflow_mlflow import errors as server_errors
from edgeflow_mlflow.api import responses, routing, table
from edgeflow_mlflow.cli.main import main as server_cli
from edgeflow_mlflow.domain import projection, summary
from edgeflow_mlflow.plugin import deploy_keys
from tests.agent.turns import Turns

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "packaging" / "agent" / "README.md"],
    key=lambda page: page.relative_to(ROOT),
)
EXAMPLES = (ROOT / "examples" / "edgeflow.toml", ROOT / "examples" / "edgeflow-agent.toml")
PROGRAMS: dict[str, click.Command] = {"edgeflow": server_cli, "edgeflow-agent": agent_cli.main}
# The server's own reasons of an execution; `reason` of services/deploy.py is the text of a rollout.
SERVER_REASONS = ("desired.py", "ingest.py", "reconcile.py")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name: str) -> Iterator[list[str]]:
    """The cells of every line of every table of a page."""
    for line in text_of(name).splitlines():
        if line.startswith("|"):
            yield [
                cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))
            ]


def words(name: str, column: int = 0) -> set[str]:
    """What stands in backticks in one column of the tables of a page."""
    return {word for row in rows(name) if len(row) > column for word in re.findall(r"`([^`]+)`", row[column])}


def section(name: str, heading: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    level = heading.partition(" ")[0]
    found = re.search(
        rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(level)}}} |\Z)", text_of(name), re.MULTILINE | re.DOTALL
    )
    assert found, f"{name} has no heading {heading!r}"
    return found[1]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ---- settings


def toml_word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


@pytest.mark.parametrize("setting", server_config.SETTINGS, ids=lambda setting: setting.name)
def test_a_setting_of_the_server_is_documented(setting: server_config.Setting) -> None:
    wanted = [f"`{setting.name}`", f"`{setting.variable}`", f"`{toml_word(setting.default)}`"]
    found = [row for row in rows("docs/configuration.md") if row[0] == wanted[0]]
    assert [row[:3] for row in found] == [wanted], "docs/configuration.md: name, variable, default, what"
    assert found[0][3]


@pytest.mark.parametrize("setting", agent_config.SETTINGS, ids=lambda setting: setting.name)
def test_a_setting_of_the_agent_is_documented(setting: agent_config.Setting) -> None:
    wanted = [f"`{setting.name}`", f"`{setting.environment}`", f"`{toml_word(setting.default)}`"]
    found = [row for row in rows("docs/configuration.md") if row[0] == wanted[0]]
    assert [row[:3] for row in found] == [wanted], "docs/configuration.md: name, variable, default, what"
    assert found[0][3]


def known_settings() -> set[str]:
    return {item.name for item in server_config.SETTINGS} | {item.name for item in agent_config.SETTINGS}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_setting_that_a_page_names_exists(page: Path) -> None:
    sections = sorted({name.partition(".")[0] for name in known_settings()})
    named = re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_]+)\b", page.read_text(encoding="utf-8"))
    files = {f"{name}.{kind}" for name in ("agent", "registry") for kind in ("json", "toml", "py")}
    assert set(named) - known_settings() - files == set()


def test_the_example_of_the_server_holds_every_default() -> None:
    assert server_config.load(file=EXAMPLES[0], environment={}).values == {
        item.name: item.default for item in server_config.SETTINGS
    }
    values = server_config._from_file(EXAMPLES[0])
    assert list(values) == [item.name for item in server_config.SETTINGS]


def test_the_example_of_the_agent_holds_every_default() -> None:
    assert agent_config.load(EXAMPLES[1], environ={}) == agent_config.AgentConfig()
    values = agent_config._from_file(EXAMPLES[1])
    assert list(values) == [item.field for item in agent_config.SETTINGS]


@pytest.mark.parametrize("example", EXAMPLES, ids=page_id)
def test_every_line_of_an_example_is_explained(example: Path) -> None:
    lines = example.read_text(encoding="utf-8").splitlines()
    bare = [
        line for before, line in itertools.pairwise(lines) if "=" in line and line[0] not in "#["
        and not before.startswith("#")
    ]  # fmt: skip
    assert bare == []


# ---- commands


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}")
    else:
        yield path, command


def options(command: click.Command) -> set[str]:
    return {
        name
        for item in command.params
        if isinstance(item, click.Option)
        for name in (*item.opts, *item.secondary_opts)
    }


COMMANDS = [item for name, program in PROGRAMS.items() for item in commands(program, name)]


# Those of `edgeflow` stand in docs/cli.md, which is made from them.
OF_THE_AGENT = [item for item in COMMANDS if item[0].startswith("edgeflow-agent")]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_a_command_says_what_it_does(path: str, command: click.Command) -> None:
    assert command.help, f"{path} has no help"


@pytest.mark.parametrize(("path", "command"), OF_THE_AGENT, ids=[path for path, _ in OF_THE_AGENT])
def test_a_command_and_its_options_are_documented(path: str, command: click.Command) -> None:
    part = "### Commands of the agent"
    table = re.findall(r"^\|.*", section("docs/configuration.md", part), re.MULTILINE)
    found = [
        line.strip("| ").split(" | ") for line in table if re.match(rf"\| `{path}( [A-Z_. ]+)?` \|", line)
    ]
    assert len(found) == 1, f"docs/configuration.md has no row for `{path}`"
    documented = {word for part in re.findall(r"`([^`]+)`", found[0][2]) for word in part.split("/")}
    assert documented == options(command)


def test_the_flags_of_the_server_are_documented() -> None:
    command = dict(COMMANDS)["edgeflow server"]
    part = section("docs/configuration.md", "### Flags of `edgeflow server`")
    assert {
        word for row in re.findall(r"^\| `([^`]+)`", part, re.MULTILINE) for word in row.split("/")
    } == options(command)


def code_of(page: Path) -> Iterator[str]:
    """Each line of a code block, and each piece of inline code."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        yield from re.sub(r"\\\n", " ", block).splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_that_a_page_shows_exist(page: Path) -> None:
    """Every `edgeflow …` and `edgeflow-agent …` in code names a command, and options that it has."""
    wrong = []
    for line in code_of(page):
        for call in re.finditer(r"(?:^|[ /(])(edgeflow(?:-agent)?)((?: [^&|()#;]+)?)", line):
            command: click.Command = PROGRAMS[call[1]]
            rest = call[2].split()
            if not rest or not re.fullmatch(r"[a-z]+", rest[0]) or " -t edgeflow" in line[: call.end(1)]:
                continue
            while isinstance(command, click.Group) and rest:
                inner = command.commands.get(rest[0])
                if inner is None:
                    break
                command, rest = inner, rest[1:]
            if isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z]+,?", rest[0]):
                if not looks_like_prose(line):
                    wrong.append(f"no command: {line.strip()}")
                continue
            given = {word.partition("=")[0] for word in rest if word.startswith("--")}
            if not isinstance(command, click.Group) and given - options(command) - {"--help"}:
                wrong.append(f"no option {sorted(given - options(command))}: {line.strip()}")
    assert wrong == []


def looks_like_prose(line: str) -> bool:
    """A line of a picture or of an output rather than a command."""
    return any(sign in line for sign in ("│", "─", "…", "─▶", "deployment:"))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = {word for line in code_of(page) for word in re.findall(r"(?:^|\W)make ([a-z-]+)", line)}
    assert named - known == set()


@pytest.mark.parametrize("key", deploy_keys.KEYS, ids=lambda key: key.name)
def test_a_key_of_deployments_is_documented(key: deploy_keys.Key) -> None:
    part = section("docs/configuration.md", "## Keys of `-C`")
    verbs = ", ".join(verb for verb, names in deploy_keys.ALLOWED.items() if key.name in names)
    assert re.search(rf"^\| `{key.name}` \| [^|]+ \| {verbs} \| \S", part, re.MULTILINE), (
        f"docs/configuration.md: | `{key.name}` | {key.wants} | {verbs} | {key.text} |"
    )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_keys_of_deployments_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"-C ([a-z_]+)=", page.read_text(encoding="utf-8")))
    assert named - {key.name for key in deploy_keys.KEYS} - {"port"} == set()  # port: run-local


# ---- API


def test_the_routes_are_exactly_those_of_the_table() -> None:
    documented = {
        (row[0], row[1].strip("`"), row[2]) for row in rows("docs/api.md") if row[0].isupper() and row[3]
    }
    assert documented == {(item.method, f"/api/v1{item.rule}", item.policy.value) for item in table.ROUTES}


def test_the_routes_of_a_device_are_exactly_those_of_its_table() -> None:
    model_slot, metrics = slot.Slot(), device_metrics.Metrics()
    answers = predictor.Predictor(model_slot, metrics, Observer(), Turns().loop)
    known = device_routes.Routes(model_slot, answers, metrics).known()
    part = section("docs/serving.md", "## Protocols")
    documented = re.findall(r"^\| `([A-Z]+ /[^`]+)` \|", part, re.MULTILINE)
    assert sorted(documented) == sorted(item for item in known if "{version}" not in item)


def test_every_policy_is_explained() -> None:
    found = re.findall(r"^\| `([a-z]+)` \|", section("docs/api.md", "## Policies"), re.MULTILINE)
    assert found == [item.value for item in routing.Policy]


def test_the_errors_are_exactly_those_of_the_table() -> None:
    part = section("docs/api.md", "## Errors")
    found = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \| `(\w+)` \|", part, re.MULTILINE)
    assert {(int(status), code, name) for status, code, name in found} == {
        (status, code, kind.__name__) for kind, (status, code) in responses.TABLE.items()
    }
    others = {
        name
        for name, kind in inspect.getmembers(server_errors, inspect.isclass)
        if issubclass(kind, server_errors.ServerError) and kind is not server_errors.ServerError
    }
    assert {name for name in others if f"`{name}`" not in part} == set()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_routes_that_a_page_names_exist(page: Path) -> None:
    known = {f"{item.method} /api/v1{item.rule}" for item in table.ROUTES}
    shapes = [re.compile(re.sub(r"<\w+>", r"[^/\\s?]+", item)) for item in known]
    named = re.findall(r"\b((?:GET|POST|PATCH|PUT|DELETE) /api/v1/[^\s`'?]+)", page.read_text("utf-8"))
    assert [item for item in named if not any(shape.fullmatch(item) for shape in shapes)] == []


# ---- wire


def test_every_topic_is_documented() -> None:
    assert {topics.topic("x", kind).replace("/x/", "/{target}/") for kind in topics.Kind} == {
        word for word in words("docs/wire.md") if word.startswith("edgeflow/targets/")
    }
    for row in rows("docs/wire.md"):
        if row[0].startswith("`edgeflow/targets/"):
            _, kind = topics.parse(row[0].strip("`").replace("{target}", "x"))
            assert row[1] == ("server" if kind in topics.TO_DEVICE else "device")


def test_every_record_is_documented() -> None:
    part = section("docs/wire.md", "## Records")
    records = {
        name
        for module in (documents, telemetry)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, module._Record)
        and not name.startswith("_")
        and kind.__module__ == module.__name__
    } - {"Requests", "Latency", "Resources"}  # parts of a window
    assert set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == records


def test_every_device_route_is_explained_on_the_wire() -> None:
    wanted = {
        f"{item.method} /api/v1{item.rule}"
        for item in table.ROUTES
        if item.policy is routing.Policy.DEVICE or item.rule == "/enroll"
    }
    assert wanted <= words("docs/wire.md")


@pytest.mark.parametrize("kind", [documents.Action, documents.PresenceKind], ids=lambda kind: kind.__name__)
def test_the_words_of_the_wire_are_documented(kind: type[documents.Action | documents.PresenceKind]) -> None:
    assert [item.value for item in kind if f"`{item.value}`" not in text_of("docs/wire.md")] == []


# ---- states and reasons


def test_every_state_is_documented_with_who_says_it() -> None:
    part = section("docs/concepts.md", "## Execution states")
    found = dict(re.findall(r"^\| `(\w+)` \| (server|device) \|", part, re.MULTILINE))
    assert found == {
        item.value: "device" if item in states.DEVICE_STATES else "server" for item in states.State
    }


@pytest.mark.parametrize("kind", [projection.Decision, summary.Status], ids=lambda kind: kind.__name__)
def test_what_becomes_of_reports_and_rollouts_is_documented(kind: type[projection.Decision]) -> None:
    part = section("docs/concepts.md", "## Execution states")
    assert [item.value for item in kind if f"`{item.value}`" not in part] == []


def constants(node: ast.AST | None) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value} - {""}
    if isinstance(node, ast.IfExp):
        return constants(node.body) | constants(node.orelse)
    return set()


def reasons_in(path: Path) -> set[str]:
    """Every word that a file gives as a reason: `reason="word"`, as an argument or an assignment."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "reason":
            found |= constants(node.value)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=True)
                else:
                    pairs = zip([target], [node.value], strict=True)
                for name, value in pairs:
                    if getattr(name, "id", getattr(name, "attr", "")) == "reason":
                        found |= constants(value)
    return found


def reasons() -> set[str]:
    agent = {word for path in (ROOT / "edgeflow_agent").rglob("*.py") for word in reasons_in(path)}
    services = ROOT / "edgeflow_mlflow" / "services"
    server = {word for name in SERVER_REASONS for word in reasons_in(services / name)}
    return agent | server | {item.value for item in plan.REFUSALS}


def reasons_of_executions() -> set[str]:
    part = section("docs/concepts.md", "### Reasons")
    return set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))


def test_every_reason_is_documented_and_no_other() -> None:
    part = section("docs/concepts.md", "### Reasons")
    _, _, others = part.rpartition("Words that never reach an execution")
    documented = reasons_of_executions() | set(re.findall(r"`(\w+)`", others))
    assert documented == reasons()


def test_the_states_of_a_reason_exist() -> None:
    part = section("docs/concepts.md", "### Reasons")
    named = {
        word.strip().replace(" ", "_")
        for cell in re.findall(r"^\| `\w+` \| ([^|]+) \|", part, re.MULTILINE)
        for word in cell.split(",")
        if word != "none"
    }
    assert named <= {state.value for state in states.TERMINAL}


def test_every_reason_of_an_execution_has_advice() -> None:
    part = section("docs/operations.md", "## An execution did not end well")
    cells = "".join(re.findall(r"^\| ([^|]+) \|", part, re.MULTILINE))
    assert reasons_of_executions() - set(re.findall(r"`(\w+)`", cells)) == set()


def test_every_metric_of_a_device_is_documented() -> None:
    source = (ROOT / "edgeflow_agent" / "inference" / "metrics.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"(edgeflow_[a-z_]+)"', source))
    assert {name for name in names if f"`{name}`" not in text_of("docs/operations.md")} == set()


# ---- the pages themselves


def slugs(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", item.lower()).replace(" ", "-") for item in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (anchor and anchor not in slugs(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"\b((?:docs|tests|examples|packaging|edgeflow_agent|edgeflow_mlflow)/[\w./-]+)",
        page.read_text("utf-8"),
    )
    missing = [name for name in named if not (ROOT / name.rstrip(".")).exists()]
    assert [name for name in missing if not (page.parent / name.rstrip(".")).exists()] == []


def test_every_decision_is_in_the_index() -> None:
    index = text_of("docs/adr/README.md")
    pages = sorted((DOCS / "adr").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        assert f"| [{page.name[:4]}]({page.name}) | {title} |" in index


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file() or page.suffix != ".md":
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#:]+)[^)\s]*\)", page.read_text(encoding="utf-8"))
        waiting += [(page.parent / link).resolve() for link in links]
    assert set(DOCS.rglob("*.md")) - seen == set()


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=page_id)
def test_no_page_speaks_of_the_machine_that_it_was_written_on(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    private = r"(?<![\w.])/(?:home|root|tmp)/\S*|\bissues? #?\d+|(?<!\w)#\d+"
    assert re.findall(private, text) == []
    assert re.findall(r"\b[\w.-]*pypi[\w.-]*\b|index-url", text, re.IGNORECASE) == []
