"""The fields that docs/busctl.md promises to programs are those that busctl prints."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import busctl_program
import postgres
import pytest
import yaml
from wire import Peer

# One version is enough: it is about names.
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

PAGE = Path(__file__).resolve().parents[2] / "docs" / "busctl.md"
CODE = re.compile(r"`([^`]+)`")
Fields = dict[tuple[str, str], set[str]]


def documented() -> Fields:
    """By command and place; what is said of a field beside its name is in no backticks."""
    section = PAGE.read_text().partition("\n## Fields\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    found = {
        (command, place.strip(" `")): set(CODE.findall(fields))
        for commands, place, fields in rows
        for command in CODE.findall(commands)
    }
    found["status CHANNEL", "."] = found["status", ".items[]"] | {"peerDetails"}
    return found


def at(place: str, data: Any) -> Iterator[dict[str, Any]]:
    """What a path as jq has them leads to."""
    here, _, rest = place.removeprefix(".").partition(".")
    if not here:
        yield data
        return
    for item in data[here[:-2]] if here.endswith("[]") else [data[here]]:
        if item is not None:
            yield from at(f".{rest}", item)


async def test_fields_are_those_that_are_documented(
    database: postgres.Database, tmp_path: Path, join: Callable[..., Awaitable[Peer]]
) -> None:
    await join(await database.create_channel("taken"), peer="billing", host="billing-0")
    metadata = {"name": "orders", "namespace": "shop"}
    manifest = {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "metadata": metadata}
    refused = manifest | {"metadata": {"name": "refused"}, "spec": {"channel": "taken"}}
    (tmp_path / "bus.yaml").write_text(yaml.safe_dump_all([manifest, refused]))
    applying = ("-f", "bus.yaml", "--bindings", "bindings")
    printed = {
        name: busctl_program.run(*arguments, "-o", "json", directory=tmp_path, BUSCTL_DATABASE=database.dsn)
        for name, arguments in {
            "plan": ("plan", *applying),
            "apply": ("apply", *applying),
            "status": ("status",),
            "status CHANNEL": ("status", "taken"),
            "peers": ("peers",),
            "top": ("top", "--interval", "0.1"),
            "rotate": ("rotate", "shop/orders", "--bindings", "bindings"),
        }.items()
    }
    wanted = documented()
    assert {command for command, _ in wanted} == printed.keys()
    for (command, place), fields in wanted.items():
        found = list(at(place, json.loads(printed[command].stdout)))
        assert found, (command, place)
        for item in found:
            assert item.keys() == fields, (command, place)
