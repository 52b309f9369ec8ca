"""A new leader: what users wait for does not wait behind all that is ready already."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import virtual_time

from bus_operator.controller import FIRST_LOOKS, HEAD_START, Controller, Item, Lane, _Term
from bus_operator.inventory import Resource
from bus_operator.kube import Kube

DATABASES = 4
CHANNELS = 200


def body(kind: str, name: str, *, ready: bool, **spec: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False", "observedGeneration": 3}
    metadata = {"namespace": "shop", "name": name, "uid": f"{kind}-{name}", "generation": 3, "resourceVersion": "1"}
    return {"kind": kind, "metadata": metadata, "spec": spec, "status": {"conditions": [condition]}}


def channel(number: int, *, ready: bool) -> dict[str, Any]:
    place = {"name": f"main-{number % DATABASES}"}
    return body("BusChannel", f"channel-{number:03d}", ready=ready, databaseRef=place)


class Work:
    """Stands for reconciling, and says how many of a lane are worked on at once."""

    def __init__(self) -> None:
        self.order: list[Item] = []
        self.databases: list[Item] = []
        self.active: dict[Lane, int] = {}
        self.most: dict[str, int] = {}
        self.lane_of: Any = None

    async def __call__(self, item: Item) -> float | None:
        lane = self.lane_of(item)
        self.active[lane] = self.active.get(lane, 0) + 1
        of_purpose = sum(number for other, number in self.active.items() if other.purpose == lane.purpose)
        self.most[lane.purpose] = max(self.most.get(lane.purpose, 0), of_purpose)
        await asyncio.sleep(0.001)
        self.active[lane] -= 1
        (self.order if item.kind == "BusChannel" else self.databases).append(item)
        return None


@asynccontextmanager
async def leading(*channels: dict[str, Any]) -> AsyncIterator[tuple[Controller, _Term, Work]]:
    """A term whose resources are queued, with `Work` in the place of reconciling."""
    kube = cast(Kube, object())
    settings = {"resync": 60.0, "workers": 4, "verification_interval": 3600.0}
    made = Controller(kube, credential_unused=timedelta(minutes=2), **settings)  # type: ignore[arg-type]
    for number in range(DATABASES):
        made.observe(None, body("BusDatabase", f"main-{number}", ready=True))
    for item in channels:
        made.observe(None, item)
    term = _Term(kube, made.inventory, credential_unused=timedelta(minutes=2), **settings)  # type: ignore[arg-type]
    made._term = term
    work = Work()
    work.lane_of, term.queue._work = term._lane_of, work
    term.add_all()
    task = asyncio.create_task(term.queue.run())
    try:
        yield made, term, work
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def finished(work: Work, number: int) -> None:
    async with asyncio.timeout(10):
        while len(work.order) < number:
            await asyncio.sleep(0.01)


async def test_what_is_not_ready_comes_first() -> None:
    last = channel(CHANNELS - 1, ready=False)
    async with leading(*(channel(number, ready=True) for number in range(CHANNELS - 1)), last) as (_, __, work):
        await finished(work, CHANNELS)
    waiting = Item("BusChannel", Resource.from_body(last).key)
    assert work.order.index(waiting) <= 2 * FIRST_LOOKS


def test_its_database_comes_first() -> None:
    async def look() -> None:
        async with leading(*(channel(number, ready=number != 2) for number in range(8))) as (_, __, work):
            await finished(work, 8)
            assert [item.key[1] for item in work.databases] == ["main-2"]
            await asyncio.sleep(2 * HEAD_START)
            assert len(work.databases) == DATABASES

    virtual_time.run(look())


async def test_a_status_that_somebody_else_wrote_ends_no_term() -> None:
    """What the definition lets through costs nobody else anything."""
    odd = body("BusChannel", "odd", ready=True)
    odd["status"]["database"] = {"name": "main-0"}
    async with leading(odd, channel(1, ready=True)) as (_, __, work):
        await finished(work, 2)
    assert Resource.from_body(odd).log_fields["database"] == "None/main-0"


async def test_first_looks_are_few_at_once_over_all_databases() -> None:
    async with leading(*(channel(number, ready=True) for number in range(CHANNELS))) as (_, __, work):
        await finished(work, CHANNELS)
    assert work.most["first_looks"] == FIRST_LOOKS
    assert len(work.databases) == DATABASES


async def test_one_that_changes_meanwhile_is_looked_at_next() -> None:
    async with leading(*(channel(number, ready=True) for number in range(CHANNELS))) as (watching, _, work):
        await finished(work, 1)
        changed = channel(CHANNELS - 1, ready=True)
        changed["metadata"] |= {"generation": 4, "resourceVersion": "2"}
        watching.observe("MODIFIED", changed)
        begun = len(work.order)
        await finished(work, CHANNELS)
    assert work.order.index(Item("BusChannel", Resource.from_body(changed).key)) - begun <= 2 * FIRST_LOOKS
