"""The demo tells its story to the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness import ROOT


@pytest.mark.timeout(240)
def test_the_demo() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), "--exit"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "robot-02: [5.1, 3.5, 1.4, 0.2] -> setosa (version 1)",
        "0 failed",
        "robot-02 serves iris version 2",
        "data set  iris-training",
    ):
        assert words in done.stdout
