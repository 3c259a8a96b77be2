#!/usr/bin/env python
"""Write the TypeScript types of the tab from the API's OpenAPI document, or check that they are up to date.

scripts/ui_types.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edgeflow_mlflow.api import openapi
from edgeflow_mlflow.api.table import ROUTES

TYPES = Path(__file__).parents[1] / "ui_extension" / "src" / "api" / "types.ts"
_PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def written(schema: dict[str, Any]) -> str:
    """A schema as a TypeScript type."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(written(item) for item in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(item) for item in schema["enum"])
    match schema.get("type"):
        case "array":
            item = written(schema["items"]) if schema.get("items") else "unknown"
            return f"({item})[]" if " | " in item else f"{item}[]"
        case "object" if "additionalProperties" in schema:
            return f"Record<string, {written(schema['additionalProperties'])}>"
        case "object":
            return "Record<string, unknown>"
        case list() as kinds:
            return " | ".join(_PLAIN[kind] for kind in kinds)
        case str() as kind:
            return _PLAIN[kind]
        case _:
            return "unknown"


def document() -> str:
    """The whole file."""
    described = openapi.document(ROUTES)["components"]["schemas"]
    lines = ["// Made by scripts/ui_types.py from the OpenAPI document; `make ui` makes it anew.", ""]
    for name, schema in sorted(described.items()):
        if schema.get("type") != "object" or "properties" not in schema:
            lines += [f"export type {name} = {written(schema)};", ""]
            continue
        required = set(schema.get("required", ()))
        lines.append(f"export interface {name} {{")
        for field, kind in schema["properties"].items():
            mark = "" if field in required else "?"
            lines.append(f"  {json.dumps(field)}{mark}: {written(kind)};")
        lines += ["}", ""]
    return "\n".join(lines)


def main() -> None:
    """Write, or compare."""
    text = document()
    if "--check" not in sys.argv[1:]:
        TYPES.parent.mkdir(parents=True, exist_ok=True)
        TYPES.write_text(text)
    elif not TYPES.is_file() or TYPES.read_text() != text:
        raise SystemExit(f"{TYPES.name} is older than the API: run `make ui` and commit what it changes")


if __name__ == "__main__":
    main()
