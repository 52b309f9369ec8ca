"""What a world consists of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Standby = Literal["synchronous", "asynchronous"]
Pooler = Literal["session", "transaction"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What there is besides a server and workers.

    Attributes:
        version: PostgreSQL's.
        standby: A server that streams, and whether commits wait for it.
        pooler: PgBouncer's mode.
        disk: The server has a file system of its own, which has room for so many MiB.
        clock: The server's clock can be set.
        peer_timeout: The channels'.
        trims: Messages may be trimmed before somebody reads them: a peer is away for longer than its timeout.
        pipecat: The reference client takes part.
    """

    version: int = 18
    standby: Standby | None = None
    pooler: Pooler | None = None
    disk: int | None = None
    clock: bool = False
    peer_timeout: str = "10m"
    trims: bool = False
    pipecat: bool = False


def merge(layouts: Iterable[Layout], **given: object) -> Layout:
    """A layout that has what each of them has.

    Raises:
        ValueError: They contradict each other.
    """
    merged: dict[str, object] = dict(given)
    for layout in layouts:
        for field in dataclasses.fields(Layout):
            value = getattr(layout, field.name)
            if value != field.default and merged.setdefault(field.name, value) != value:
                raise ValueError(f"{field.name} cannot be both {merged[field.name]!r} and {value!r}")
    return Layout(**merged)  # type: ignore[arg-type]
