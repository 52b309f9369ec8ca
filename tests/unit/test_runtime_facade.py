"""The reference client's five methods on a log, called as that client calls them."""

import asyncio
import itertools
import time
from typing import Any

import pytest
from log_reader import HandWaker, ScriptedBackend, payloads, settle
from recorder import eventually

from bus_runtime import AccessDeniedError, JoinOptions, LogRecord, UnavailableError
from bus_runtime import lookout as lookout_module
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


@pytest.fixture
def scripted(broker: InMemoryBroker) -> ScriptedBackend:
    return ScriptedBackend(broker)


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
    assert broker.channel("orders").offers == {}
    with pytest.raises(AccessDeniedError, match="was not joined here"):
        await read(backend, one)


# --- what is not archived ---


async def test_what_is_not_archived_is_read_again_after_its_timeout(backend: InMemoryBackend) -> None:
    queue = await backend.join("orders")
    await backend.publish("orders", queue, {"n": 1})
    assert await read(backend, queue, vt=0) == [(1, {"n": 1})]
    assert await read(backend, queue, vt=30) == [(1, {"n": 1})]
    assert await read(backend, queue) == []
    await backend.leave(queue, channel="orders")


async def test_reading_on_neither_puts_that_off_nor_has_to_end(
    backend: InMemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 600.0)
    queue = await backend.join("orders")
    await backend.publish("orders", queue, {"n": 1})
    began = time.monotonic()
    assert await read(backend, queue, vt=1) == [(1, {"n": 1})]
    assert await read(backend, queue, vt=1) == []
    await backend.publish("orders", queue, {"n": 2})
    assert await read(backend, queue, vt=30) == [(2, {"n": 2})]
    assert await read(backend, queue, vt=30, max_poll_seconds=30) == [(1, {"n": 1}), (2, {"n": 2})]
    assert 1 <= time.monotonic() - began < 20
    await backend.leave(queue, channel="orders")


async def test_who_archives_is_alive(backend: InMemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    queue = await backend.join("orders")
    for number in range(3):
        await backend.publish("orders", queue, {"n": number})
    assert len(await read(backend, queue, vt=30)) == 3
    for msg_id in (1, 2):
        now += 29
        await backend.archive(queue, channel="orders", msg_id=msg_id)
        assert await read(backend, queue) == []
    now += 30
    assert await read(backend, queue) == [(3, {"n": 2})]
    await backend.leave(queue, channel="orders")


async def test_what_is_not_for_this_peer_is_acknowledged_behind_what_is_in_hand(scripted: ScriptedBackend) -> None:
    queue = await scripted.join("orders")
    scripted.answers = [
        [LogRecord(1, None), LogRecord(2, b"{}"), LogRecord(3, None)],
        [],
        [LogRecord(4, None)],
        [],
    ]
    assert await read(scripted, queue) == [(2, {})]
    assert await read(scripted, queue) == []
    await scripted.archive(queue, channel="orders", msg_id=3)
    assert await read(scripted, queue) == []
    assert await read(scripted, queue) == []
    assert [(r.after, r.acknowledge) for r in scripted.reads] == [(0, 0), (3, 1), (3, 3), (4, 4)]
    await scripted.leave(queue, channel="orders")


# --- waiting ---


async def test_read_waits_and_is_woken(backend: InMemoryBackend) -> None:
    queue = await backend.join("orders")
    waiting = asyncio.create_task(read(backend, queue, max_poll_seconds=30))
    await settle()
    await backend.publish("orders", queue, {"n": 1})
    assert await asyncio.wait_for(waiting, 5) == [(1, {"n": 1})]
    assert await read(backend, queue, max_poll_seconds=0.05) == []
    await backend.leave(queue, channel="orders")


@pytest.mark.parametrize("call", ["wake", "offer"])
async def test_whatever_is_announced_is_read_from_the_log(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 600.0)
    queue = await scripted.join("orders")
    waiting = asyncio.create_task(read(scripted, queue, max_poll_seconds=600))
    await settle()
    await scripted.publish("orders", queue, {"n": 1})
    if call == "wake":
        scripted.wakers[0].wake(1)
    else:
        scripted.wakers[0].offer(1, payloads(1))
    assert await asyncio.wait_for(waiting, 10) == [(1, {"n": 1})]
    assert len(scripted.reads) == 2
    await scripted.leave(queue, channel="orders")
    assert scripted.wakers[0].closed


async def test_it_looks_by_itself_and_reports_what_nothing_announced(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(lookout_module, "GRACE", 0.02)
    queue = await scripted.join("orders")
    waiting = asyncio.create_task(read(scripted, queue, max_poll_seconds=600))
    await settle()
    await scripted.publish("orders", queue, {"n": 1})
    assert await asyncio.wait_for(waiting, 10) == [(1, {"n": 1})]
    await eventually(lambda: scripted.wakers[0].complaints == 1)
    # To read a message again is to find nothing.
    assert await read(scripted, queue, vt=0) == []
    scripted._cursors[queue].visible_at = 0.0
    assert await read(scripted, queue, vt=0) == [(1, {"n": 1})]
    assert scripted._cursors[queue].lookout._timer is None
    await scripted.leave(queue, channel="orders")


async def test_what_is_found_otherwise_is_no_omission(scripted: ScriptedBackend) -> None:
    queue = await scripted.join("orders")
    lookout = scripted._cursors[queue].lookout
    for number in range(3):
        await scripted.publish("orders", queue, {"n": number})
    # A backlog, in several reads.
    for _ in range(3):
        assert await read(scripted, queue, qty=1)
        assert lookout._timer is None
    # Announced while it was being found.
    for call in (lambda: scripted.wakers[0].offer(4, payloads(1)), lambda: scripted.wakers[0].wake(5)):
        assert await read(scripted, queue) == []
        await scripted.publish("orders", queue, {"n": 4})
        assert await read(scripted, queue)
        assert lookout._timer is not None
        call()
        assert lookout._timer is None
    assert await read(scripted, queue) == []
    await scripted.publish("orders", queue, {"n": 5})
    assert await read(scripted, queue)
    await scripted.leave(queue, channel="orders")
    assert lookout._timer is None


@pytest.mark.parametrize(("mode", "expected"), [("doorbell", [0.02, 0.04, 0.08]), ("poll", [0.01, 0.02, 0.04])])
async def test_looks_grow_rarer(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, mode: str, expected: list[float]
) -> None:
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 0.02)
    scripted.make_waker = lambda: HandWaker(mode)
    queue = await scripted.join("orders")
    waiting = asyncio.create_task(read(scripted, queue, max_poll_seconds=600))
    await eventually(lambda: len(scripted.reads) >= 4)
    waiting.cancel()
    waited = [later.at - earlier.at for earlier, later in itertools.pairwise(scripted.reads)]
    assert all(is_ >= least for is_, least in zip(waited, expected, strict=False)), waited
    await scripted.leave(queue, channel="orders")


# --- refusals ---


async def test_one_refusal_may_be_a_rotated_login(scripted: ScriptedBackend) -> None:
    queue = await scripted.join("orders")
    await scripted.publish("orders", queue, {"n": 1})
    scripted.failures = [AccessDeniedError("bus: access denied", sqlstate="42501")]
    assert await read(scripted, queue) == [(1, {"n": 1})]
    assert len(scripted.wakers) == 1
    await scripted.leave(queue, channel="orders")


async def test_a_dropped_peer_reads_on_behind_the_same_name(backend: InMemoryBackend, broker: InMemoryBroker) -> None:
    queue = await backend.join("orders")
    broker.drop_peers("orders")
    assert await read(backend, queue) == []
    await backend.publish("orders", queue, {"n": 1})
    assert await read(backend, queue) == [(1, {"n": 1})]
    await backend.leave(queue, channel="orders")
    assert broker.channel("orders").peers == {}


async def test_the_new_peer_is_woken_in_place_of_the_former(scripted: ScriptedBackend, broker: InMemoryBroker) -> None:
    queue = await scripted.join("orders")
    broker.drop_peers("orders")
    waiting = asyncio.create_task(read(scripted, queue, max_poll_seconds=600))
    await eventually(lambda: len(scripted.wakers) == 2 and scripted.wakers[1].started)
    assert [waker.closed for waker in scripted.wakers] == [True, False]
    await settle()
    await scripted.publish("orders", queue, {"n": 1})
    scripted.wakers[1].wake(1)
    assert await asyncio.wait_for(waiting, 10) == [(1, {"n": 1})]
    await scripted.leave(queue, channel="orders")


async def test_a_publisher_that_joined_anew_first_is_followed_at_once(
    scripted: ScriptedBackend, broker: InMemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "FIRST_LOOK", 600.0)
    queue = await scripted.join("orders")
    waiting = asyncio.create_task(read(scripted, queue, max_poll_seconds=600))
    await settle()
    broker.drop_peers("orders")
    await scripted.publish("orders", queue, {"n": 1})
    assert await asyncio.wait_for(waiting, 10) == [(1, {"n": 1})]
    assert [waker.closed for waker in scripted.wakers] == [True, False]
    assert len(scripted.reads) == 2, "nothing was asked in the name of the former peer"
    await scripted.leave(queue, channel="orders")
    assert broker.channel("orders").peers == {}


async def test_a_server_that_refuses_for_good_is_not_asked_for_ever(scripted: ScriptedBackend) -> None:
    queue = await scripted.join("orders")
    scripted.failures = [AccessDeniedError("bus: access denied", sqlstate="42501") for _ in range(100)]
    with pytest.raises(AccessDeniedError):
        await read(scripted, queue, max_poll_seconds=600)
    assert len(scripted.reads) == 3
    scripted.failures = []
    assert await read(scripted, queue) == []
    await scripted.leave(queue, channel="orders")


async def test_an_outage_is_the_callers_to_repeat(scripted: ScriptedBackend) -> None:
    queue = await scripted.join("orders")
    await scripted.publish("orders", queue, {"n": 1})
    scripted.failures = [UnavailableError("down")]
    with pytest.raises(UnavailableError):
        await read(scripted, queue)
    assert await read(scripted, queue) == [(1, {"n": 1})]
    await scripted.leave(queue, channel="orders")


# --- the log in memory ---


async def test_publishing_nothing_is_no_error(backend: InMemoryBackend) -> None:
    await backend.join("orders")
    membership = await backend.join_channel("orders", JoinOptions())
    assert await backend.publish_many("orders", membership.queue, []) == []


async def test_publishes_are_offered_to_everyone_in_the_order_of_the_log(backend: InMemoryBackend) -> None:
    heard: list[tuple[int, list[bytes | None]]] = []
    memberships = [await backend.join_channel("orders", JoinOptions()) for _ in range(3)]
    wakers = [backend.waker(membership) for membership in memberships]
    for waker in wakers:
        await waker.start(lambda up_to=None: None, lambda first_id, given: heard.append((first_id, list(given))))
    assert [waker.audience for waker in wakers] == [3, 3, 3]
    await backend.publish_many("orders", memberships[0].queue, [b"1", b"2"])
    await wakers[2].close()
    await backend.publish_many("orders", memberships[0].queue, [b"3"])
    assert heard == [(1, [b"1", b"2"])] * 3 + [(3, [b"3"])] * 2
    # Whoever is no peer any more is not told either.
    await backend.leave_channel("orders", memberships[1].queue, forget=True)
    await backend.publish_many("orders", memberships[0].queue, [b"4"])
    assert heard[5:] == [(4, [b"4"])]
    # What came with its announcement was delivered all the same.
    await backend.read_after("orders", memberships[0].queue, after=4, acknowledge=3, limit=0)
    assert list(backend._broker.channel("orders").log) == [1, 2, 3, 4], "another peer has acknowledged nothing"
    await backend.leave_channel("orders", memberships[2].queue, forget=True)
    assert list(backend._broker.channel("orders").log) == [4]


async def test_a_durable_peer_is_told_what_it_was_given_before(backend: InMemoryBackend) -> None:
    first = await backend.join_channel("orders", JoinOptions(peer="ledger"))
    await backend.publish_many("orders", first.queue, [b"{}"] * 5)
    await backend.read_after("orders", first.queue, after=3, acknowledge=2, limit=0)
    second = await backend.join_channel("orders", JoinOptions(peer="ledger"))
    assert (second.resumed, second.position, second.delivered) == (True, 2, 3)
    assert [r.msg_id for r in await backend.read_after("orders", second.queue, after=2, acknowledge=None, limit=9)] == [
        3, 4, 5,
    ]  # fmt: skip
