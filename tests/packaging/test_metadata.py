"""What the two distributions promise: their lists of requirements stay one list."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER_ONLY = {"mlflow", "sqlalchemy", "alembic", "flask", "uvicorn", "starlette", "amqtt", "onnx", "rich"}


def read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(path.read_text())
    return parser


def requirements(path: Path, extra: str = "") -> dict[str, str]:
    lines = read(path)["options"]["install_requires"].split("\n")
    if extra:
        lines = read(path)["options.extras_require"][extra].split("\n")
    found = {}
    for line in filter(None, (line.strip() for line in lines)):
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", line)
        assert match is not None, line
        found[match[1].lower()] = match[2]
    return found


WHOLE = requirements(ROOT / "setup.cfg")
AGENT = requirements(ROOT / "packaging" / "agent" / "setup.cfg")
MANAGED = requirements(ROOT / "packaging" / "agent" / "setup.cfg", "managed")


def test_the_agents_list_is_part_of_the_whole_with_the_same_bounds() -> None:
    assert (AGENT | MANAGED).items() <= WHOLE.items()
    assert not AGENT.keys() & MANAGED.keys()


def test_the_agents_list_holds_nothing_of_the_server() -> None:
    assert not SERVER_ONLY & AGENT.keys()
    assert WHOLE.keys() >= AGENT.keys() | (SERVER_ONLY - {"rich"})


def test_both_have_one_version_one_licence_and_one_range_of_pythons() -> None:
    whole, agent = read(ROOT / "setup.cfg"), read(ROOT / "packaging" / "agent" / "setup.cfg")
    for section, key in (
        ("metadata", "version"),
        ("metadata", "license"),
        ("metadata", "license_files"),
        ("options", "python_requires"),
    ):
        assert whole[section][key] == agent[section][key]
    scripts = agent["options.entry_points"]["console_scripts"].strip()
    assert scripts in whole["options.entry_points"]["console_scripts"]


def test_both_take_images_with_the_same_extra() -> None:
    paths = (ROOT / "setup.cfg", ROOT / "packaging" / "agent" / "setup.cfg")
    whole, agent = (read(path)["options.extras_require"]["image"] for path in paths)
    assert whole == agent


def test_the_agent_is_not_copied() -> None:
    link = ROOT / "packaging" / "agent" / "edgeflow_agent"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "edgeflow_agent"
    assert not os.path.isabs(link.readlink())


def test_the_licence_is_there() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert len(text.splitlines()) > 190


def test_make_without_a_word_prints_the_targets() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-slow", "lint", "wheels", "benchmarks"):
        assert f"make {target} " in shown


def test_scripts_can_be_run_and_say_bash_means_it() -> None:
    for path in (ROOT / ".ci" / "run", *(item for item in (ROOT / "scripts").iterdir() if item.is_file())):
        text = path.read_text()
        assert os.access(path, os.X_OK), path
        if path.suffix == ".py":
            assert text.startswith("#!/usr/bin/env python\n"), path
            continue
        assert text.startswith("#!/usr/bin/env bash\n"), path
        assert "set -euo pipefail" in text, path


def test_no_python_old_enough_is_a_clear_error(tmp_path: Path) -> None:
    """`make-venv` in a tree without a usable Python says what to install."""
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "make-venv"
    script.write_text((ROOT / "scripts" / "make-venv").read_text())
    script.chmod(0o755)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "cat"):
        (tools / name).symlink_to(f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}")
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (tools / name).write_text("#!/usr/bin/env bash\nexit 1\n")
        (tools / name).chmod(0o755)
    ended = subprocess.run(
        [str(script), "test"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "needs Python 3.11 or newer" in ended.stderr
