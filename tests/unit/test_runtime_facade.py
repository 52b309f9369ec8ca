"""The reference client's five methods on a log, called as that client calls them."""

import asyncio
from typing import Any

import pytest
from recorder import eventually

from bus_runtime import AccessDeniedError
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


@pytest.fixture
def broker() -> InMemoryBroker:
    return InMemoryBroker()


@pytest.fixture
def backend(broker: InMemoryBroker) -> InMemoryBackend:
    return InMemoryBackend(broker)


async def read(backend: InMemoryBackend, queue: str, **options: Any) -> list[tuple[int, dict[str, Any]]]:
    defaults: dict[str, Any] = {"vt": 30, "qty": 10, "max_poll_seconds": 0, "poll_interval_ms": 10}
    messages = await backend.read(queue, channel="orders", **(defaults | options))
    return [(m.msg_id, m.message) for m in messages]


async def test_join_publish_read_archive_leave(backend: InMemoryBackend, broker: InMemoryBroker) -> None:
    one, two = await backend.join("orders"), await backend.join("orders")
    assert one != two
    for number in range(3):
        await backend.publish("orders", one, {"n": number})
    expected = [(1, {"n": 0}), (2, {"n": 1}), (3, {"n": 2})]
    assert await read(backend, one, qty=2) == expected[:2]
    assert await read(backend, one) == expected[2:]
    assert await read(backend, two) == expected
    assert await backend.archive(one, channel="orders", msg_id=3)
    assert not await backend.archive(one, channel="orders", msg_id=3)
    assert not await backend.archive(one, channel="orders", msg_id=99)
    assert await backend.archive(two, channel="orders", msg_id=2)
    assert await read(backend, one) == await read(backend, two) == []
    assert broker.backlog("orders") == 1
    await backend.leave(one, channel="orders")
    await backend.leave(one, channel="orders")
    await backend.leave(two, channel="orders")
    assert broker.channel("orders").peers == {}
    with pytest.raises(AccessDeniedError, match="was not joined here"):
        await read(backend, one)


async def test_what_is_not_archived_is_read_again_after_its_timeout(backend: InMemoryBackend) -> None:
    queue = await backend.join("orders")
    await backend.publish("orders", queue, {"n": 1})
    assert await read(backend, queue, vt=0) == [(1, {"n": 1})]
    await eventually(lambda: True)
    assert await read(backend, queue, vt=30) == [(1, {"n": 1})]
    assert await read(backend, queue) == []
    await backend.leave(queue, channel="orders")


async def test_read_waits_and_is_woken(backend: InMemoryBackend) -> None:
    queue = await backend.join("orders")
    waiting = asyncio.create_task(read(backend, queue, max_poll_seconds=30))
    await asyncio.sleep(0)
    await backend.publish("orders", queue, {"n": 1})
    assert await asyncio.wait_for(waiting, 5) == [(1, {"n": 1})]
    assert await read(backend, queue, max_poll_seconds=0.05) == []
    await backend.leave(queue, channel="orders")


async def test_a_dropped_peer_reads_on_behind_the_same_name(backend: InMemoryBackend, broker: InMemoryBroker) -> None:
    queue = await backend.join("orders")
    broker.drop_peers("orders")
    assert await read(backend, queue) == []
    await backend.publish("orders", queue, {"n": 1})
    assert await read(backend, queue) == [(1, {"n": 1})]
    await backend.leave(queue, channel="orders")
    assert broker.channel("orders").peers == {}
