"""Group commit: what is waiting goes into the next call, neighbours do not suffer, nothing is sent twice."""

import asyncio
import gc
import json
from collections.abc import Callable, Sequence

import pytest
import virtual_time
from recorder import eventually

from bus_runtime import (
    BackendError,
    ConnectionLostError,
    JoinOptions,
    PeerRefusedError,
    PublishError,
    RejectedError,
    TransientError,
    UnavailableError,
)
from bus_runtime.publisher import Publisher
from bus_runtime.session import Session
from bus_runtime.testing import InMemoryBackend, InMemoryBroker


class Scripted(InMemoryBackend):
    """Records its calls, holds them at a gate, and fails them as told."""

    def __init__(self, broker: InMemoryBroker) -> None:
        super().__init__(broker)
        self.calls: list[list[int]] = []
        self.failures: list[BaseException] = []
        self.refuse: Callable[[int], bool] = lambda _: False
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish_many(self, channel: str, queue: str, payloads: Sequence[bytes]) -> list[int]:
        numbers = [json.loads(p) for p in payloads]
        self.calls.append([n if isinstance(n, int) else len(n) for n in numbers])
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if any(isinstance(n, int) and self.refuse(n) for n in numbers):
            raise RejectedError("unsupported Unicode escape sequence", sqlstate="22P05")
        return await super().publish_many(channel, queue, payloads)


@pytest.fixture
def backend(broker: InMemoryBroker) -> Scripted:
    return Scripted(broker)


@pytest.fixture
async def session(backend: Scripted) -> Session:
    session = Session(backend, "orders", JoinOptions())
    await session.join(0)
    return session


@pytest.fixture
def publisher(backend: Scripted, session: Session) -> Publisher:
    return Publisher(backend, session, timeout=5.0)


def send(publisher: Publisher, *numbers: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(publisher.publish(json.dumps(n).encode())) for n in numbers]


async def test_a_lone_message_goes_at_once_and_those_behind_it_together(
    backend: Scripted, publisher: Publisher
) -> None:
    backend.gate.clear()
    first = send(publisher, 0)
    await eventually(lambda: backend.calls)
    rest = send(publisher, *range(1, 10))
    await asyncio.sleep(0)
    backend.gate.set()
    assert await asyncio.gather(*first, *rest) == list(range(1, 11))
    assert backend.calls == [[0], list(range(1, 10))]


async def test_a_call_is_bounded_in_messages_and_bytes(backend: Scripted, publisher: Publisher) -> None:
    backend.gate.clear()
    first = send(publisher, 0)
    await eventually(lambda: backend.calls)
    small = send(publisher, *range(1, 1101))
    big = [asyncio.create_task(publisher.publish(b'"' + b"x" * 1_000_000 + b'"')) for _ in range(6)]
    await asyncio.sleep(0)
    backend.gate.set()
    await asyncio.gather(*first, *small, *big)
    assert [len(call) for call in backend.calls] == [1, 500, 500, 104, 2]


async def test_a_rejected_message_fails_alone_and_order_is_kept(backend: Scripted, publisher: Publisher) -> None:
    backend.refuse = lambda n: n == 3
    backend.gate.clear()
    first = send(publisher, 0)
    await eventually(lambda: backend.calls)
    rest = send(publisher, *range(1, 6))
    await asyncio.sleep(0)
    backend.gate.set()
    results = await asyncio.gather(*first, *rest, return_exceptions=True)
    assert isinstance(results[3], RejectedError)
    assert [r for r in results if isinstance(r, int)] == [1, 2, 3, 4, 5]
    assert backend.calls == [[0], [1, 2, 3, 4, 5], [1], [2], [3], [4], [5]]


async def test_what_is_too_large_is_not_even_sent(backend: Scripted, session: Session) -> None:
    backend._broker.max_message_bytes = 10
    await session.join(0)
    with pytest.raises(RejectedError, match="message of 11 bytes exceeds this channel's limit of 10 bytes"):
        await Publisher(backend, session, timeout=1).publish(b"12345678901")
    assert backend.calls == []


@pytest.mark.parametrize(
    "error", [UnavailableError("down"), TransientError("busy", sqlstate="55P03")], ids=["down", "busy"]
)
async def test_what_certainly_had_no_effect_is_tried_again_in_order(
    backend: Scripted, publisher: Publisher, broker: InMemoryBroker, error: BackendError
) -> None:
    backend.failures = [error, error]
    ids = await asyncio.gather(*send(publisher, 0, 1, 2))
    assert ids == [1, 2, 3]
    assert [json.loads(p) for p in broker.channel("orders").log.values()] == [0, 1, 2]


async def test_trying_again_has_an_end(backend: Scripted, session: Session) -> None:
    backend.failures = [UnavailableError("down") for _ in range(100)]
    with pytest.raises(UnavailableError, match="down"):
        await Publisher(backend, session, timeout=0.2).publish(b"1")
    assert 1 < len(backend.calls) < 10


@pytest.mark.parametrize(
    "error", [ConnectionLostError("connection lost"), BackendError("odd", sqlstate="42883"), RuntimeError("foreign")]
)
async def test_whatever_may_have_had_an_effect_is_never_repeated(
    backend: Scripted, publisher: Publisher, error: Exception
) -> None:
    backend.failures = [error]
    results = await asyncio.gather(*send(publisher, 0), return_exceptions=True)
    assert results == [error]
    assert await asyncio.gather(*send(publisher, 1)) == [1]
    assert backend.calls == [[0], [1]]


async def test_a_cancelled_publisher_is_not_sent_and_a_waiting_one_is(backend: Scripted, publisher: Publisher) -> None:
    backend.gate.clear()
    first = send(publisher, 0)
    await eventually(lambda: backend.calls)
    second, third = send(publisher, 1, 2)
    await asyncio.sleep(0)
    second.cancel()
    backend.gate.set()
    assert await asyncio.gather(*first, third) == [1, 2]
    assert backend.calls == [[0], [2]]


async def test_who_is_cancelled_between_two_attempts_is_not_sent_later(
    backend: Scripted, publisher: Publisher, broker: InMemoryBroker
) -> None:
    """Whoever gave up may well publish it again."""
    backend.failures = [UnavailableError("down") for _ in range(100)]
    (first,) = send(publisher, 0)
    await eventually(lambda: backend.calls)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    backend.failures.clear()
    await asyncio.gather(*send(publisher, 1))
    assert [json.loads(p) for p in broker.channel("orders").log.values()] == [1]


async def test_who_is_cancelled_while_it_is_sent_leaves_no_error_that_nobody_takes(
    backend: Scripted, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    backend.gate.clear()
    (first,) = send(publisher, 0)
    await eventually(lambda: backend.calls)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    del first
    await asyncio.sleep(0)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
    backend.gate.set()
    assert await asyncio.gather(*send(publisher, 1)) == [1]


async def test_a_dropped_peer_joins_anew_once_and_the_message_goes_out(
    backend: Scripted, publisher: Publisher, session: Session, broker: InMemoryBroker
) -> None:
    before = session.membership
    broker.drop_peers("orders")
    assert await asyncio.gather(*send(publisher, 7)) == [1]
    assert session.membership is not before
    assert len(broker.channel("orders").peers) == 1


async def test_a_durable_peer_does_not_fight_for_its_name(backend: Scripted, broker: InMemoryBroker) -> None:
    session = Session(backend, "orders", JoinOptions(peer="ledger"))
    await session.join(0)
    later = await backend.join_channel("orders", JoinOptions(peer="ledger"))
    with pytest.raises(PeerRefusedError):
        await Publisher(backend, session, timeout=1).publish(b"1")
    assert list(broker.channel("orders").peers) == [later.queue]


async def test_closing_sends_what_is_waiting(backend: Scripted, publisher: Publisher) -> None:
    backend.gate.clear()
    tasks = send(publisher, 0, 1)
    await eventually(lambda: backend.calls)
    closing = asyncio.create_task(publisher.close(5.0))
    await asyncio.sleep(0)
    backend.gate.set()
    await closing
    assert await asyncio.gather(*tasks) == [1, 2]


async def test_closing_gives_up_and_says_what_is_known(backend: Scripted, publisher: Publisher) -> None:
    backend.gate.clear()
    sent = send(publisher, 0)
    await eventually(lambda: backend.calls)
    waiting = send(publisher, 1)
    await asyncio.sleep(0)
    await publisher.close(0.01)
    results = await asyncio.gather(*sent, *waiting, return_exceptions=True)
    assert [type(r) for r in results] == [PublishError, PublishError]
    assert [r.outcome_unknown for r in results if isinstance(r, PublishError)] == [True, False]


def test_closing_ends_where_the_answer_comes_when_the_time_is_up() -> None:
    """What waited was just about to be sent."""

    class Slow(InMemoryBackend):
        async def publish_many(self, channel: str, queue: str, payloads: Sequence[bytes]) -> list[int]:
            await asyncio.sleep(5.0)
            return await super().publish_many(channel, queue, payloads)

    async def close() -> None:
        session = Session(Slow(InMemoryBroker()), "orders", JoinOptions())
        await session.join(0)
        publisher = Publisher(session._backend, session, timeout=5.0)
        tasks = send(publisher, 0)
        await asyncio.sleep(0)
        tasks += send(publisher, 1)
        await asyncio.sleep(0)
        await publisher.close(5.0)
        first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert (first, type(second)) == (1, PublishError)

    virtual_time.run(close())
