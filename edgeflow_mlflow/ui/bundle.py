"""The built bundle: which file is which, and its bytes. Built by `make ui` from `ui_extension/`."""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
_MANIFEST = "manifest.json"
# Vite's names of the two scripts that a page may begin with.
INJECTED = "src/inject.ts"
ALONE = "src/alone.ts"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file, ready to be sent."""

    media_type: str
    plain: bytes
    packed: bytes


def entry(source: str) -> str:
    """The file that was built from a source; empty when there is no bundle."""
    return _entries().get(source, "")


@functools.cache
def _entries() -> dict[str, str]:
    path = FOLDER / _MANIFEST
    if not path.is_file():
        return {}
    built = json.loads(path.read_text())
    return {source: found["file"] for source, found in built.items() if "file" in found}


@functools.cache
def names() -> frozenset[str]:
    """The files that may be asked for."""
    return frozenset(path.name for path in FOLDER.glob("*") if path.suffix in _TYPES)


@functools.lru_cache(maxsize=64)
def asset(name: str) -> Asset | None:
    """A file of the bundle by its name; there are few, and they never change."""
    if name not in names():
        return None
    plain = (FOLDER / name).read_bytes()
    return Asset(media_type=_TYPES[Path(name).suffix], plain=plain, packed=gzip.compress(plain, 9, mtime=0))
