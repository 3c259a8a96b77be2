"""The packages that a model was made with, from the text of its requirements file."""

from __future__ import annotations

import re

_LINE = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*([^;#]*)")
_MOST = 500


def parse(text: str) -> dict[str, str]:
    """Versions by the normalised names of the packages: `==1.2` is "1.2", another condition stands as it is,
    and a package without one has "any". Options, addresses and comments are left out."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = None if line.lstrip().startswith(("-", "#")) or "://" in line else _LINE.match(line)
        if match is None:
            continue
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        condition = match[2].strip()
        found[name] = condition.removeprefix("==").strip() or "any"
        if len(found) >= _MOST:
            break
    return dict(sorted(found.items()))
