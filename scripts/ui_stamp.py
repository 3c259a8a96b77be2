#!/usr/bin/env python
"""Say from which sources the bundle of the tab was built, or check that it was built from those of now.

    scripts/ui_stamp.py [--check]

The check needs no node: it compares hashes.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "ui_extension"
STAMP = ROOT / "edgeflow_mlflow" / "ui" / "static" / "sources.sha256"


def digest() -> str:
    """A hash over the name and the bytes of each source."""
    whole = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*")):
        name = path.relative_to(SOURCES)
        if path.is_file() and name.parts[0] not in ("node_modules", ".svelte-kit", "test-build"):
            whole.update(f"{name.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def main() -> None:
    """Write, or compare."""
    if "--check" not in sys.argv[1:]:
        STAMP.write_text(digest() + "\n")
    elif not STAMP.is_file() or STAMP.read_text().strip() != digest():
        raise SystemExit(
            "the bundle of the tab is older than its sources: run `make ui` and commit the result"
        )


if __name__ == "__main__":
    main()
