"""Typed records may be read by many threads from the first one on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# In a process of its own: what it looks for is a segmentation fault.
_RACE = """
import sys, threading
import msgspec
from edgeflow_agent import typed

sys.setswitchinterval(1e-6)
for turn in range(100):
    inner = [msgspec.defstruct(f"I{turn}_{i}", [(f"f{k}", int, 0) for k in range(20)]) for i in range(20)]
    outer = msgspec.defstruct(f"O{turn}", [(f"g{i}", kind) for i, kind in enumerate(inner)])
    data = msgspec.json.encode({f"g{i}": {"f1": i} for i in range(20)})
    together = threading.Barrier(6)
    seen = []

    def read():
        together.wait()
        seen.append(typed.read(outer, data).g3.f1)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [3] * 6
"""


def test_many_threads_read_a_kind_for_the_first_time_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", _RACE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_nothing_reads_typed_data_by_another_way() -> None:
    other = re.compile(r"msgspec\.(json\.decode\([^)]*type=|convert\()")
    found = [
        str(path.relative_to(ROOT))
        for folder in ("edgeflow_agent", "edgeflow_mlflow")
        for path in (ROOT / folder).rglob("*.py")
        if path != ROOT / "edgeflow_agent" / "typed.py" and other.search(path.read_text())
    ]
    assert found == []
