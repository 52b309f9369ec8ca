"""The reference client and ours on one channel, in one process: jobs, lifecycle, order, every pair of backends."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pipecat.bus as reference_bus
import pytest
from pgmq.async_queue import PGMQueue
from pipecat.bus.network.pgmq_backends import DirectPgmqBackend as ReferenceDirectBackend
from pipecat.pipeline.job_context import JobStatus as ReferenceJobStatus
from postgres import Channel, Database
from recorder import Recorder, eventually, note
from reference_recorder import ReferenceRecorder

import bus_runtime
from bus_runtime import (
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    DirectPgmqBackend,
    IsolatedPgmqBackend,
    JobStatus,
    PgmqBus,
    WorkerRegistryEntry,
)

Make = Callable[..., Any]


async def exchange(mine: PgmqBus, my_recorder: Recorder, theirs: Any, their_recorder: ReferenceRecorder) -> None:
    """Jobs and lifecycle messages both ways, each checked where it arrives."""
    sent: list[BusMessage] = [
        BusWorkerRegistryMessage("r1", [WorkerRegistryEntry("w1", active=True, started_at=1.5)], source="r1"),
        BusWorkerReadyMessage("r1", None, True, source="w1"),
        BusActivateWorkerMessage({"metadata": {"k": [1, b"\x00"]}}, source="w1", target="w2"),
        BusJobRequestMessage("j1", "sum", {"numbers": [1, 2.5], "text": "\u2603"}, source="w1", target="w2"),
        BusCancelMessage("enough", source="w1"),
    ]
    for message in sent:
        await mine.publish(message, raise_on_error=True)
    await eventually(lambda: len(their_recorder.messages) == len(sent))
    by_id = {message.id: message for message in their_recorder.messages}
    for message in sent:
        arrived = by_id[message.id]
        assert type(arrived) is getattr(reference_bus, type(message).__name__)
        assert dataclasses.asdict(arrived) == dataclasses.asdict(message)
    job = by_id[sent[3].id]
    await theirs.send(
        reference_bus.BusJobResponseMessage(
            job.job_id, ReferenceJobStatus.COMPLETED, {"sum": sum(job.payload["numbers"])}, source="w2", target="w1"
        )
    )
    await theirs.send(reference_bus.BusEndWorkerMessage("done", source="runner", target="w1"))
    await eventually(lambda: len(my_recorder.messages) == len(sent) + 2)
    response, end = my_recorder.messages[-2:]
    assert isinstance(response, BusJobResponseMessage)
    assert (response.status, response.response, response.target) == (JobStatus.COMPLETED, {"sum": 3.5}, "w1")
    assert isinstance(end, bus_runtime.BusEndWorkerMessage)
    assert end.reason == "done"


async def test_our_bus_and_the_references(
    ours: Make, reference: Make, reference_backend: Any, channel: Channel
) -> None:
    my_recorder, their_recorder = Recorder(), ReferenceRecorder()
    mine = await ours(my_recorder)
    theirs = await reference(their_recorder, backend=reference_backend, channel=channel.name)
    await exchange(mine, my_recorder, theirs, their_recorder)
    assert mine.stats().undecodable == 0
    await eventually(lambda: mine.stats().acknowledged == mine.stats().position)


async def test_our_bus_and_the_references_on_our_backend(ours: Make, reference: Make, bindings: Path) -> None:
    """The line of the documentation, with no channel named."""
    my_recorder, their_recorder = Recorder(), ReferenceRecorder()
    mine = await ours(my_recorder)
    theirs = await reference(their_recorder, backend=IsolatedPgmqBackend.from_binding(root=bindings))
    await exchange(mine, my_recorder, theirs, their_recorder)


async def test_the_reference_on_both_backends(
    reference: Make, reference_backend: Any, channel: Channel, bindings: Path
) -> None:
    on_ours, on_theirs = ReferenceRecorder("on ours"), ReferenceRecorder("on theirs")
    one = await reference(
        on_ours, backend=IsolatedPgmqBackend.from_binding("orders", root=bindings), channel=channel.name
    )
    two = await reference(on_theirs, backend=reference_backend, channel=channel.name)
    for number in range(25):
        for bus in (one, two):
            await bus.send(reference_bus.BusJobUpdateMessage(f"{bus}", {"n": number}, source="w"))
    await eventually(lambda: len(on_ours.messages) == len(on_theirs.messages) == 50)
    assert [vars(m) for m in on_ours.messages] == [vars(m) for m in on_theirs.messages]


async def test_a_reference_bus_leaves_nothing_behind(reference: Make, bindings: Path, database: Database) -> None:
    recorder = ReferenceRecorder()
    bus = await reference(recorder, backend=IsolatedPgmqBackend.from_binding(root=bindings))
    await bus.send(reference_bus.BusEndMessage(source="w"))
    await eventually(lambda: recorder.messages)
    await bus.stop()
    async with database.session() as connection:
        assert await connection.fetchval("select count(*) from pgmq_bus.peer") == 0
        sessions = "select count(*) from pg_stat_activity where datname = current_database() and usename like 'bus_%'"
        async with asyncio.timeout(10):
            while await connection.fetchval(sessions):
                await asyncio.sleep(0.01)


async def test_a_reference_bus_on_our_backend_survives_killed_sessions(
    reference: Make, bindings: Path, database: Database
) -> None:
    recorder = ReferenceRecorder()
    bus = await reference(recorder, backend=IsolatedPgmqBackend.from_binding(root=bindings))
    await bus.send(reference_bus.BusEndMessage("aaa before", source="w"))
    await eventually(lambda: recorder.messages)
    async with database.session() as connection:
        kill = "select pg_terminate_backend(pid) from pg_stat_activity where usename like 'bus_login%'"
        assert await connection.fetch(f"{kill} and datname = current_database()")
    # Some of these may be caught by a broken connection, with an outcome that nobody knows.
    for number in range(10):
        await bus.send(reference_bus.BusEndMessage(f"after {number}", source="w"))
    await eventually(lambda: recorder.messages[-1].reason == "after 9")
    reasons = [m.reason for m in recorder.messages]
    assert reasons == sorted(set(reasons)), "in order, none twice"
    assert len(reasons) > 6


async def test_frames_of_the_reference_do_not_disturb_us(
    ours: Make, reference: Make, reference_backend: Any, channel: Channel
) -> None:
    from pipecat.frames.frames import TextFrame
    from pipecat.processors.frame_processor import FrameDirection

    recorder = Recorder()
    mine = await ours(recorder)
    theirs = await reference(backend=reference_backend, channel=channel.name)
    await theirs.send(reference_bus.BusFrameMessage(TextFrame("x"), FrameDirection.DOWNSTREAM, source="w"))
    await mine.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    assert mine.stats().undecodable == 1


class NamesOnly(PGMQueue):  # type: ignore[misc]
    """pipecat-ai 1.14 is made for pgmq before 1.1, which listed names instead of records."""

    async def list_queues(self, conn: Any = None) -> list[str]:
        return [record.queue_name for record in await super().list_queues(conn=conn)]


@pytest.fixture
async def queues(database: Database) -> AsyncIterator[Callable[[type], Any]]:
    """PGMQ itself, as an administrator uses it."""
    made: list[PGMQueue] = []

    async def make(cls: type) -> PGMQueue:
        queue = cls(conn_string=database.dsn, init_extension=False, pool_size=4)
        await queue.init()
        made.append(queue)
        return queue

    yield make
    for queue in made:
        await queue.close()


@pytest.mark.filterwarnings("ignore:list_queues")
async def test_direct_backends_of_both_kinds(queues: Make, reference: Make, database: Database) -> None:
    my_recorder, their_recorder = Recorder(), ReferenceRecorder()
    mine = PgmqBus(pgmq=await queues(PGMQueue), channel="shop.orders/eu")
    await mine.subscribe(my_recorder)
    await mine.start()
    theirs = await reference(
        their_recorder, backend=ReferenceDirectBackend(await queues(NamesOnly)), channel="shop.orders/eu"
    )
    # Both look their peers up at most once a second.
    await exchange(mine, my_recorder, theirs, their_recorder)
    await mine.stop()
    await theirs.stop()
    async with database.session() as connection:
        assert await connection.fetchval("select count(*) from pgmq.list_queues() where queue_name like 'shop%'") == 0


@pytest.mark.filterwarnings("ignore:list_queues")
async def test_direct_peers_of_a_longer_channel_name_are_not_ours(queues: Make) -> None:
    pgmq = await queues(PGMQueue)
    short, long = Recorder("short"), Recorder("long")
    one, two = PgmqBus(backend=DirectPgmqBackend(pgmq), channel="a"), PgmqBus(pgmq=pgmq, channel="a_b")
    await one.subscribe(short)
    await two.subscribe(long)
    await one.start()
    await two.start()
    await one.publish(note(1), raise_on_error=True)
    await two.publish(note(2), raise_on_error=True)
    await eventually(lambda: short.numbers == [1] and long.numbers == [2])
    await one.stop()
    await two.stop()
