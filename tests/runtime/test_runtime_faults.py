"""What breaks between a bus and its server, and that nothing is lost or repeated by it."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway import SILENT, gateway
from postgres import Channel, Database, Server, create_database, create_template, start_server
from recorder import Note, Recorder, eventually, note

from bus_runtime import BusMessage, PgmqBus, PublishError
from bus_runtime.address import ADDRESS_VARIABLE

LOGINS = "usename like 'bus_login_%' and datname = current_database()"


async def terminate_sessions(database: Database, condition: str = "true") -> int:
    async with database.session() as connection:
        return len(
            await connection.fetch(
                f"select pg_terminate_backend(pid) from pg_stat_activity where {LOGINS} and {condition}"
            )
        )


async def publish_raw(channel: Channel, *documents: str) -> None:
    """As any member of the channel can: JSON that is no message."""
    connection = await channel.connect()
    try:
        queue = await connection.fetchval("select public.bus_join($1)", channel.name)
        for document in documents:
            await connection.execute("select public.bus_publish($1, $2, $3::jsonb)", channel.name, queue, document)
        await connection.execute("select public.bus_leave($1, $2)", queue, channel.name)
    finally:
        await connection.close()


READER = """
import asyncio, os, sys
sys.path[:0] = {path!r}
from recorder import Recorder
from bus_runtime import PgmqBus

async def main():
    never = asyncio.Event()

    async def handle(message):
        print(message.number, flush=True)
        if message.number == 3:
            await never.wait()

    bus = PgmqBus.from_binding(root={root!r}, **{options!r})
    await bus.subscribe(Recorder(handler=handle))
    await bus.start()
    print("queue", bus._link._session.membership.queue, flush=True)
    await never.wait()

asyncio.run(main())
"""


async def start_reader(bindings: Path, **options: Any) -> tuple[asyncio.subprocess.Process, str]:
    """A process that handles messages 0 to 2 and sticks at 3; and the name of its queue."""
    code = READER.format(path=[entry for entry in sys.path if entry], root=str(bindings), options=options)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    word, queue = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
    assert word == "queue"
    return process, queue


async def until_it_sticks(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    for expected in range(4):
        assert int(await asyncio.wait_for(process.stdout.readline(), 30)) == expected


async def acknowledged(database: Database, queue: str, position: int) -> None:
    async with database.session() as connection:
        async with asyncio.timeout(10):
            query = "select acknowledged from pgmq_bus.peer where queue = $1"
            while await connection.fetchval(query, queue) != position:
                await asyncio.sleep(0.01)


async def test_a_killed_durable_reader_gets_the_unacknowledged_again_after_its_restart(
    make_bus: Any, bindings: Path, database: Database
) -> None:
    writer = await make_bus()
    process, queue = await start_reader(bindings, peer="ledger")
    try:
        for number in range(6):
            await writer.publish(note(number), raise_on_error=True)
        await until_it_sticks(process)
        await acknowledged(database, queue, 3)
    finally:
        process.kill()
        await process.wait()
    await writer.publish(note(6), raise_on_error=True)
    recorder = Recorder()
    await make_bus(recorder, peer="ledger")
    await eventually(lambda: len(recorder.messages) == 4)
    assert recorder.numbers == [3, 4, 5, 6]


async def test_a_reader_killed_in_a_handler_slower_than_the_visibility_timeout_gets_the_same_again(
    make_bus: Any, bindings: Path, database: Database
) -> None:
    """A log has no visibility timeout: only who joins anew is handed what was not acknowledged."""
    writer = await make_bus()
    process, queue = await start_reader(bindings, peer="ledger", visibility_timeout=1, max_poll_seconds=1)
    try:
        for number in range(6):
            await writer.publish(note(number), raise_on_error=True)
        await until_it_sticks(process)
        await acknowledged(database, queue, 3)
        assert process.stdout is not None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.stdout.readline(), 2.5)
        await acknowledged(database, queue, 3)
    finally:
        process.kill()
        await process.wait()
    redelivered: list[int] = []
    recorder = Recorder()
    bus = await make_bus(recorder, peer="ledger", on_redelivered=redelivered.append)
    await eventually(lambda: bus.stats().acknowledged == 6)
    assert recorder.numbers == [3, 4, 5]
    assert redelivered == [4, 5, 6]
    assert bus.stats().lost == 0


@pytest.mark.parametrize("peer", [None, "ledger"])
async def test_a_handler_slower_than_the_visibility_timeout_is_not_overtaken(make_bus: Any, peer: str | None) -> None:
    """Not by the same message, whatever the reader reads meanwhile, nor by an acknowledgement."""
    gate = asyncio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    slow, quick = Recorder("slow", handler=wait), Recorder("quick")
    reader = await make_bus(slow, quick, peer=peer, visibility_timeout=1, max_poll_seconds=1)
    writer = await make_bus()
    loop = asyncio.get_running_loop()
    until, published = loop.time() + 2.5, 0
    while loop.time() < until:
        await writer.publish(note(published), raise_on_error=True)
        published += 1
        await eventually(lambda published=published: len(quick.messages) == published)
        await asyncio.sleep(0.05)
    assert [message.number for message in slow.begun if isinstance(message, Note)] == [0]
    assert reader.stats().acknowledged == 0
    gate.set()
    await eventually(lambda: reader.stats().acknowledged == published)
    assert slow.numbers == quick.numbers == list(range(published))
    stats = reader.stats()
    assert stats.received == published
    assert stats.redelivered == stats.lost == stats.rejoined == 0


async def test_killed_connections_lose_and_repeat_nothing(
    make_bus: Any, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Sessions are killed throughout; only publishes that broke in the middle may be unsure, and they say so."""
    recorder, other = Recorder("one"), Recorder("other")
    reader = await make_bus(recorder)
    await make_bus(other)
    writer = await make_bus()
    count, sure, unsure = 150, set(), set()
    errors: list[PublishError] = []

    async def publish() -> None:
        for number in range(count):
            try:
                await writer.publish(note(number), raise_on_error=True)
                sure.add(number)
            except PublishError as exc:
                unsure.add(number)
                errors.append(exc)
            await asyncio.sleep(0.005)

    async def kill() -> int:
        killed = 0
        while len(sure) + len(unsure) < count:
            killed += await terminate_sessions(database)
            await asyncio.sleep(0.2)
        return killed

    _, killed = await asyncio.gather(publish(), kill())
    assert killed > 6
    assert all(error.outcome_unknown for error in errors), errors
    await eventually(lambda: sure <= set(recorder.numbers) and recorder.numbers == other.numbers, seconds=20)
    await eventually(lambda: reader.stats().acknowledged == reader.stats().position)
    assert recorder.numbers == sorted(set(recorder.numbers)), "in order, none twice"
    assert set(recorder.numbers) - sure <= unsure
    assert reader.stats().lost == 0


async def test_listening_falls_back_to_polling_and_comes_back(
    make_bus: Any, database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(ADDRESS_VARIABLE, "off")
    recorder = Recorder()
    reader = await make_bus(recorder, max_poll_seconds=60)
    await eventually(lambda: reader.stats().wake == "listen")
    assert await terminate_sessions(database, "query ilike 'listen%'") == 1
    await eventually(lambda: reader.stats().wake == "poll")
    await reader.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    await eventually(lambda: reader.stats().wake == "listen")
    await reader.publish(note(2), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1, 2])
    listening = [r.getMessage() for r in caplog.records if "listening for new messages" in r.getMessage()]
    assert len(listening) == 2, "one warning, one recovery"


async def test_undecodable_messages_are_set_aside(make_bus: Any, channel: Channel) -> None:
    seen: list[tuple[int, bytes]] = []
    recorder = Recorder()
    bus = await make_bus(recorder, on_undecodable=lambda i, payload, _: seen.append((i, payload)))
    bomb = "[" * 500 + "]" * 500
    await publish_raw(channel, '{"stray": 1}', bomb, '{"__type__": "os.system", "__data__": {"command": "true"}}', "7")
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    await eventually(lambda: bus.stats().acknowledged == 5)
    assert bus.stats().undecodable == 4
    assert [msg_id for msg_id, _ in seen] == [1, 2, 3, 4]
    assert seen[0][1] == b'{"stray": 1}'


async def test_a_dropped_peer_joins_anew(make_bus: Any, database: Database) -> None:
    recorder = Recorder()
    bus = await make_bus(recorder)
    async with database.session() as connection:
        await connection.execute("delete from pgmq_bus.peer")
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1] and bus.stats().rejoined == 1)
    await bus.stop()
    async with database.session() as connection, asyncio.timeout(10):
        assert await connection.fetchval("select count(*) from pgmq_bus.peer") == 0
        while await connection.fetchval(f"select count(*) from pg_stat_activity where {LOGINS}"):
            await asyncio.sleep(0.01)


async def test_the_later_holder_of_a_durable_name_takes_over(make_bus: Any, caplog: pytest.LogCaptureFixture) -> None:
    old, new = Recorder("old"), Recorder("new")
    earlier = await make_bus(old, peer="ledger")
    await earlier.publish(note(1), raise_on_error=True)
    await eventually(lambda: earlier.stats().acknowledged == 1)
    later = await make_bus(new, peer="ledger")
    await later.publish(note(2), raise_on_error=True)
    await eventually(lambda: new.numbers == [2] and earlier.stats().state == "refused")
    assert old.numbers == [1]
    assert "a later process took the place of this durable peer" in caplog.text


async def test_lost_messages_are_reported_by_the_server(make_bus: Any, bindings: Path, database: Database) -> None:
    """A durable peer that stays away longer than the peer timeout no longer holds trimming back."""
    bus = await make_bus(peer="ledger")
    await bus.stop()
    async with database.session() as connection:
        await connection.execute("update pgmq_bus.peer set last_seen = now() - interval '1 day'")
    writer = await make_bus(Recorder())
    for number in range(5):
        await writer.publish(note(number), raise_on_error=True)
    await eventually(lambda: writer.stats().acknowledged == 5)
    await writer.stop()
    lost: list[int] = []
    bus = await make_bus(peer="ledger", on_lost=lost.append)
    await eventually(lambda: lost == [5])
    assert bus.stats().lost == 5


async def test_rotated_credentials_are_picked_up(
    make_bus: Any, bindings: Path, channel: Channel, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The old login stops working while the bus runs; the binding's files have the new one."""
    recorder = Recorder()
    bus = await make_bus(recorder)
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    async with database.session() as connection:
        await connection.execute(f"alter role {channel.username} password 'rotated-by-the-test'")
    assert await terminate_sessions(database) > 0
    await eventually(lambda: "refuses the binding's credential" in caplog.text)
    publishing = asyncio.create_task(bus.publish(note(2), raise_on_error=True))
    uri = channel.endpoint.uri(channel.username, "rotated-by-the-test")
    (bindings / "orders" / "uri").write_text(uri)
    await publishing
    await eventually(lambda: recorder.numbers == [1, 2], seconds=20)


async def test_a_server_that_hangs_keeps_nobody_who_stops(
    make_bus: Any, channel: Channel, bindings: Path, database: Database
) -> None:
    """Its machine confirms what it is sent, so that the connection looks well; a statement alone may take 40 s."""
    with gateway(channel.endpoint.port) as front:
        endpoint = replace(channel.endpoint, port=front.port)
        (bindings / "orders" / "uri").write_text(endpoint.uri(channel.username, channel.password))
        recorder = Recorder()
        bus = await make_bus(recorder, stop_timeout=1.0)
        await bus.publish(note(1), raise_on_error=True)
        await eventually(lambda: recorder.numbers == [1])
        front.become(SILENT)
        began = time.monotonic()
        await bus.stop()
        assert time.monotonic() - began < 20
        async with database.session() as connection, asyncio.timeout(30):
            while await connection.fetchval(f"select count(*) from pg_stat_activity where {LOGINS}"):
                await asyncio.sleep(0.05)


@pytest.fixture
async def own_database(server: Server) -> AsyncIterator[Database]:
    """A database on a server that may be stopped without disturbing other tests."""
    own = start_server(server.version)
    try:
        await asyncio.to_thread(create_template, own)
        yield await create_database(own)
    finally:
        own.remove()


async def test_a_server_restart_loses_and_repeats_nothing(
    own_database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    channel = await own_database.create_channel("shop.orders")
    root = channel.binding_dir(tmp_path)
    recorder, bus = Recorder(), PgmqBus.from_binding(root=root)
    await bus.subscribe(recorder)
    await bus.start()
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    server = own_database.server
    await asyncio.to_thread(server.stop)
    # While the server is away, a publish waits.
    publishing = asyncio.create_task(bus.publish(note(2), raise_on_error=True))
    await eventually(lambda: "publishing to channel" in caplog.text)
    assert not publishing.done()
    await asyncio.to_thread(server.start)
    await publishing
    await eventually(lambda: recorder.numbers == [1, 2], seconds=20)
    assert bus.stats().wake == "doorbell"
    assert bus.stats().rejoined == bus.stats().lost == 0
    await eventually(lambda: bus.stats().acknowledged == 2)
    await bus.stop()
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
