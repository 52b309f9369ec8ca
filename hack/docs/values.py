"""The reference of the chart's values: from the comments in values.yaml and from values.schema.json."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml

from hack.docs.pages import ROOT

CHART = ROOT / "charts" / "pgmq-bus"

_KEY = re.compile(r"^( *)([A-Za-z]+):")

Schema = dict[str, Any]


class Value(NamedTuple):
    """A value of the chart."""

    path: str
    """As `--set` takes it."""
    default: Any
    comment: str
    schema: Schema
    has_parts: bool
    """Whether it consists of further values."""


def page() -> str:
    """The page about all values."""
    lines = [
        "# Values of the chart",
        "",
        "What `--set` and a file of values may hold. Everything else is refused.",
        "",
        *table(lambda path: f'<span id="{path.lower()}">`{path}`</span>'),
    ]
    return "\n".join(lines) + "\n"


def table(shown: Callable[[str], str] = "`{}`".format) -> list[str]:
    """The lines of a table of all values, whose paths are `shown` so."""
    lines = ["| Value | Type | Default | What it is |", "|---|---|---|---|"]
    for value in values():
        default = "" if value.has_parts else f"`{json.dumps(value.default)}`"
        kind = "" if value.has_parts else _type(value.schema)
        lines.append(f"| {shown(value.path)} | {kind} | {default} | {_cell(value.comment)} |")
    return lines


def values() -> list[Value]:
    """All of them, in the order of values.yaml."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    text = (CHART / "values.yaml").read_text()
    return list(_values("", yaml.safe_load(text), schema, schema["definitions"], comments(text)))


def comments(text: str) -> dict[str, str]:
    """What the comment right above each key says, by the key's path."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip().removeprefix("#").strip())
            continue
        if match := _KEY.match(line):
            indent = len(match[1])
            parents = [parent for parent in parents if parent[0] < indent] + [(indent, match[2])]
            found[".".join(name for _, name in parents)] = " ".join(above).strip()
        above = []
    return found


def _values(prefix: str, defaults: Any, schema: Schema, named: Schema, said: dict[str, str]) -> Iterator[Value]:
    for name, default in defaults.items():
        path = f"{prefix}{name}"
        described = schema.get("properties", {}).get(name, {})
        if (reference := described.get("$ref")) is not None:
            described = named[reference.rpartition("/")[2]]
            yield Value(path, default, said.get(path, ""), described, has_parts=False)
            continue
        has_parts = "properties" in described
        yield Value(path, default, said.get(path, ""), described, has_parts)
        if has_parts:
            yield from _values(f"{path}.", default, described, named, said)


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {schema['items'].get('type', 'any')}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        kind += f"; {low} to {high}" if high is not None else f"; at least {low}"
    return kind


def _cell(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "&#124;")
