"""The examples, as a reader would run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import harness


@pytest.mark.slow
def test_winter_meets_summer(tmp_path: Path) -> None:
    script = str(harness.ROOT / "examples" / "drift" / "seattle.py")
    picture = tmp_path / "seattle.svg"
    done = harness.command("python", script, "--picture", str(picture), folder=tmp_path)
    assert "change: ok" in done.stdout
    assert "FIRING TargetDrift" in done.stdout.partition("July")[2]
    assert "temperature" in done.stdout.partition("FIRING")[2]
    assert picture.read_text(encoding="utf-8").count("<svg") == 1
