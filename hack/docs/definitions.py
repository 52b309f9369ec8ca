"""The reference of a resource, from its CustomResourceDefinition."""

from collections.abc import Iterator
from typing import Any

import yaml

from hack.docs.pages import ROOT

Schema = dict[str, Any]

_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
}


def page(file: str) -> str:
    """The page about the definition of a file in crds/."""
    definition = yaml.safe_load((ROOT / "crds" / file).read_text())
    names = definition["spec"]["names"]
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    called = ", ".join(f"`{name}`" for name in (names["plural"], *names["shortNames"]))
    lines = [
        f"# {names['kind']}",
        "",
        schema["description"],
        "",
        f"`apiVersion: {definition['spec']['group']}/{version['name']}`. kubectl knows it as {called};"
        f" `kubectl get {names['categories'][0]}` shows it with the others.",
        "",
        *_rules(schema),
    ]
    for part in ("spec", "status"):
        lines += _section(part, schema["properties"][part])
    lines += ["## Columns of kubectl get", "", "| Column | | What it is |", "|---|---|---|"]
    lines += [
        f"| {column['name']} | {'with `-o wide`' if column.get('priority') else ''} | {column.get('description', '')} |"
        for column in version["additionalPrinterColumns"]
    ]
    return "\n".join(lines) + "\n"


def fields(file: str) -> dict[str, Schema]:
    """Every field below spec and status by its path; what is in lists and maps is not a field."""
    definition = yaml.safe_load((ROOT / "crds" / file).read_text())
    (version,) = definition["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    return {path: field for part in ("spec", "status") for path, field, _ in _fields(part, properties[part])}


def _section(path: str, schema: Schema) -> Iterator[str]:
    yield from (f"## {path}", "", schema.get("description", ""), "", *_rules(schema))
    yield from ("| Field | Type | Default | What it is |", "|---|---|---|---|")
    for name, field, required in _fields(path, schema):
        default = f"`{_yaml(field['default'])}`" if "default" in field else "required" if required else ""
        text = " ".join([field.get("description", ""), *(f"*{rule}.*" for rule in _messages(field))])
        shown = name.removeprefix(f"{path}.")
        yield f'| <span id="{name.lower()}">`{shown}`</span> | {_type(field)} | {default} | {_cell(text)} |'
    yield ""


def _fields(path: str, schema: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """Path, schema and whether it is required, of everything below."""
    for name, field in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        yield below, field, name in schema.get("required", ())
        yield from _fields(below, field)
        if field.get("type") == "array":
            yield from _fields(f"{below}[]", field["items"])


def _rules(schema: Schema) -> Iterator[str]:
    messages = list(_messages(schema))
    if messages:
        yield from (*(f"- {_cell(message)}." for message in messages), "")


def _messages(schema: Schema) -> list[str]:
    return [rule["message"].rstrip(".") for rule in schema.get("x-kubernetes-validations", ())]


def _type(field: Schema) -> str:
    kind = str(field.get("type", "any"))
    if kind == "array":
        kind = f"list of {field['items'].get('type', 'any')}"
    if isinstance(more := field.get("additionalProperties"), dict):
        kind = f"map of {more.get('type', 'any')}"
    if "enum" in field:
        kind = ", ".join(f"`{value}`" for value in field["enum"])
    return "; ".join([kind, *(text.format(field[key]) for key, text in _BOUNDS.items() if key in field)])


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("...").strip()


def _cell(text: str) -> str:
    """What stands in a table's cell, where `<` begins no tag and `|` ends nothing."""
    return text.replace("<", "&lt;").replace("|", "&#124;").replace("*.*", "*").strip()
