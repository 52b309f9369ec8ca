"""Buses on a real server: delivery, order, limits, what the server sees of a peer."""

import asyncio
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from postgres import Channel, Database
from recorder import Recorder, alarm, eventually, note

from bus_runtime import (
    AccessDeniedError,
    BusError,
    BusJobRequestMessage,
    BusMessage,
    BusWorkerRegistryMessage,
    IsolatedPgmqBackend,
    JSONMessageSerializer,
    PgmqBus,
    PublishError,
    RejectedError,
    UnavailableError,
    WorkerRegistryEntry,
)
from bus_runtime.address import ADDRESS_VARIABLE


async def peers(database: Database) -> list[asyncpg.Record]:
    async with database.session() as connection:
        return await connection.fetch("select * from pgmq_bus.peer order by joined_at")


async def backlog(database: Database) -> int:
    async with database.session() as connection:
        queue = await connection.fetchval("select queue from pgmq_bus.channel")
        return int(await connection.fetchval(f"select count(*) from pgmq.q_{queue}"))


async def settles_to(database: Database, condition: str, count: int) -> bool:
    """Whether the number of this database's sessions with `condition` gets there within seconds."""
    query = f"select count(*) from pg_stat_activity where datname = current_database() and {condition}"
    async with database.session() as connection:
        for _ in range(1000):
            if await connection.fetchval(query) == count:
                return True
            await asyncio.sleep(0.01)
    return False


async def test_two_buses_exchange_messages_in_one_order(make_bus: Any, database: Database) -> None:
    first, second = Recorder("first"), Recorder("second")
    one, two = await make_bus(first), await make_bus(second)
    await eventually(lambda: one.stats().wake == two.stats().wake == "doorbell")
    await asyncio.gather(*(bus.send(note(n)) for n in range(100) for bus in (one, two)))
    await eventually(lambda: len(first.messages) == len(second.messages) == 200)
    assert [m.id for m in first.messages] == [m.id for m in second.messages]
    assert sorted(first.numbers) == sorted([*range(100)] * 2)
    assert one.stats().position == two.stats().position == 200
    await one.stop()
    await two.stop()
    assert await peers(database) == []
    assert await backlog(database) == 0


async def test_rich_messages_survive_the_database(make_bus: Any) -> None:
    recorder = Recorder()
    bus = await make_bus(recorder)
    sent: list[BusMessage] = [
        BusJobRequestMessage(
            "j1",
            "résumé",
            {"text": '\u2603 \U0001f600 \\ " \t', "deep": [1, 2.5, -3e100, None, {"a": [True]}], "blob": b"\x00\xff"},
            source="a",
            target="b",
        ),
        BusWorkerRegistryMessage("r", [WorkerRegistryEntry("w", active=True, started_at=1.25)], source="r"),
        note(7),
    ]
    for message in sent:
        await bus.publish(message, raise_on_error=True)
    await eventually(lambda: len(recorder.messages) == 3)
    assert sorted(recorder.messages, key=lambda m: m.id) == sent


async def test_a_wake_up_beats_polling_by_far(make_bus: Any) -> None:
    recorder = Recorder()
    reader = await make_bus(recorder, max_poll_seconds=60)
    writer = await make_bus()
    await eventually(lambda: reader.stats().wake == "doorbell")
    for number in range(5):
        began = time.monotonic()
        await writer.send(note(number))
        await eventually(lambda expected=number + 1: len(recorder.messages) == expected)
        assert time.monotonic() - began < 5


async def test_a_pool_of_one_connection_is_enough(channel: Channel) -> None:
    async with channel.pool(min_size=1, max_size=1) as pool:
        bus, recorder = PgmqBus(backend=IsolatedPgmqBackend(pool), channel=channel.name), Recorder()
        await bus.subscribe(recorder)
        await bus.start()
        assert bus.stats().wake == "poll"
        await asyncio.gather(*(bus.publish(note(n), raise_on_error=True) for n in range(20)))
        await eventually(lambda: len(recorder.messages) == 20)
        await bus.stop()
        assert await pool.fetchval("select 1") == 1, "a pool that was given stays open"


async def test_type_codecs_of_the_callers_pool_do_not_matter(channel: Channel) -> None:
    async def init(connection: asyncpg.Connection) -> None:
        for kind in ("json", "jsonb"):
            await connection.set_type_codec(kind, encoder=orjson.dumps, decoder=orjson.loads, schema="pg_catalog")

    async with channel.pool(init=init) as pool:
        bus, recorder = PgmqBus(backend=IsolatedPgmqBackend(pool), channel=channel.name), Recorder()
        await bus.subscribe(recorder)
        await bus.start()
        await bus.publish(note(1), raise_on_error=True)
        await eventually(lambda: recorder.numbers == [1])
        await bus.stop()


async def test_poisoned_messages_do_not_take_their_neighbours_along(make_bus: Any) -> None:
    recorder = Recorder()
    bus = await make_bus(recorder)

    def job(number: int, payload: Any) -> BusJobRequestMessage:
        return BusJobRequestMessage(str(number), payload={"p": payload}, source="x")

    # PostgreSQL's jsonb has no U+0000. The channel's limit is for the text of the jsonb, which has spaces that ours
    # has not: number 5 passes here and is refused there.
    limit = 1024 * 1024
    overhead = len(JSONMessageSerializer().serialize(job(5, "")))
    poison = {3: "nul \u0000", 5: "x" * (limit - overhead - 4), 6: "x" * limit}
    results = await asyncio.gather(
        *(bus.publish(job(n, poison.get(n, "fine")), raise_on_error=True) for n in range(8)), return_exceptions=True
    )
    failed = {n: r for n, r in enumerate(results) if r is not None}
    assert failed.keys() == poison.keys()
    for error in failed.values():
        assert isinstance(error, PublishError)
        assert isinstance(error.__cause__, RejectedError)
        assert not error.outcome_unknown
    assert failed[6].code == "MessageTooLarge"
    assert "exceeds this channel's limit of 1048576 bytes" in str(failed[6])
    assert isinstance(failed[5].__cause__, RejectedError)
    assert failed[5].__cause__.sqlstate == "54000"
    assert failed[6].__cause__.sqlstate is None, "not even sent"
    await eventually(lambda: len(recorder.messages) == 5)
    assert [m.job_id for m in recorder.messages] == ["0", "1", "2", "4", "7"]  # type: ignore[attr-defined]


async def test_without_self_delivery_only_others_receive_and_nothing_piles_up(
    database: Database, tmp_path: Path
) -> None:
    channel = await database.create_channel("quiet", selfDelivery=False)
    root = channel.binding_dir(tmp_path / "quiet", "quiet")
    own, other = Recorder("own"), Recorder("other")
    one, two = PgmqBus.from_binding(root=root), PgmqBus.from_binding(root=root)
    await one.subscribe(own)
    await two.subscribe(other)
    await one.start()
    await two.start()
    for number in range(35):
        await one.publish(note(number), raise_on_error=True)
    await two.publish(note(99), raise_on_error=True)
    await eventually(lambda: own.numbers == [99] and len(other.messages) == 35)
    assert other.numbers == list(range(35))
    await eventually(lambda: one.stats().position == 36)
    assert one.stats().lost == two.stats().lost == 0
    await one.stop()
    await two.stop()


async def test_what_the_server_knows_of_a_peer_and_what_everybody_may_see(
    make_bus: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTNAME", "worker-7")
    await make_bus(peer="ledger")
    (row,) = await peers(database)
    assert (row["name"], row["host"]) == ("ledger", "worker-7")
    assert row["runtime"].startswith("bus_runtime/")
    async with database.session() as connection:
        names = await connection.fetch(
            "select distinct application_name from pg_stat_activity where usename like 'bus_login_%'"
        )
    assert [r["application_name"] for r in names] == [f"{row['runtime']} g1"]


@pytest.mark.parametrize(("address", "wake", "connections"), [("127.0.0.1", "doorbell", 3), ("off", "listen", 4)])
async def test_few_connections_at_rest(
    make_bus: Any, database: Database, monkeypatch: pytest.MonkeyPatch, address: str, wake: str, connections: int
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, address)
    recorder = Recorder()
    bus = await make_bus(recorder)
    await eventually(lambda: bus.stats().wake == wake)
    for number in range(20):
        await bus.send(note(number))
    await eventually(lambda: len(recorder.messages) == 20)
    async with database.session() as connection:
        count = await connection.fetchval("select count(*) from pg_stat_activity where usename like 'bus_login_%'")
    assert count <= connections
    await bus.stop()
    assert await settles_to(database, "usename like 'bus_login_%'", 0)


async def test_no_snapshot_is_held_while_waiting(make_bus: Any, database: Database) -> None:
    """What would hold vacuum back."""
    await make_bus(max_poll_seconds=60)
    assert await settles_to(database, "usename like 'bus_login_%' and state <> 'idle'", 0)


async def test_the_limits_of_a_channel_are_told(database: Database, tmp_path: Path) -> None:
    channel = await database.create_channel("small", limits={"maxPeers": 1})
    root = channel.binding_dir(tmp_path / "small", "small")
    one, two = PgmqBus.from_binding(root=root), PgmqBus.from_binding(root=root)
    await one.start()
    with pytest.raises(RejectedError, match="channel has its maximum of 1 peers") as caught:
        await two.start()
    assert caught.value.code == "TooManyPeers"
    assert two.stats().state == "stopped"
    await one.stop()
    await two.start()
    await two.stop()


async def test_a_bus_that_could_not_start_keeps_no_session(make_bus: Any, database: Database) -> None:
    """Whoever tries again and again, with a bus of its own each time, would use them all up."""
    bus = await make_bus(start=False, peer="x" * 201)
    with pytest.raises(RejectedError, match="a peer name has 1 to 200 characters"):
        await bus.start()
    assert await settles_to(database, "usename like 'bus_login_%'", 0)


async def test_a_bus_that_is_stopped_while_it_joins_keeps_no_session(make_bus: Any, database: Database) -> None:
    bus = await make_bus(start=False)
    async with database.session() as session, session.transaction():
        await session.execute("select from pgmq_bus.channel for update")
        starting = asyncio.create_task(bus.start())
        assert await settles_to(database, "usename like 'bus_login_%' and state = 'active'", 1)
        await asyncio.wait_for(bus.stop(), 5)
        with pytest.raises(BusError, match="was called before it had started"):
            await starting
    assert bus.stats().state == "stopped"
    assert await settles_to(database, "usename like 'bus_login_%'", 0)


async def test_a_channel_that_is_not_ours_is_denied_at_once(channel: Channel) -> None:
    async with channel.pool() as pool:
        bus = PgmqBus(backend=IsolatedPgmqBackend(pool), channel="somebody.elses", join_timeout=60)
        began = time.monotonic()
        with pytest.raises(AccessDeniedError, match=r"bus: access denied.* \[ChannelAccessDenied\]$"):
            await bus.start()
        assert time.monotonic() - began < 5


async def test_a_server_that_is_not_there_is_waited_for_and_then_reported(bindings: Path) -> None:
    (bindings / "orders" / "uri").write_text("postgresql://nobody:x@127.0.0.1:1/none")
    bus = PgmqBus.from_binding(root=bindings, join_timeout=0.3)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await bus.start()
    await bus.stop()


PUBLISHERS = """
import asyncio, sys
sys.path[:0] = {path!r}
from recorder import note
from bus_runtime import PgmqBus

async def main(first, buses, count):
    started = [PgmqBus.from_binding(root={root!r}) for _ in range(buses)]
    for bus in started:
        await bus.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    async def publish(number, bus):
        limit = asyncio.Semaphore(8)
        async def one(i):
            async with limit:
                await bus.publish(note(number * count + i, source=str(number)), raise_on_error=True)
        await asyncio.gather(*(one(i) for i in range(count)))

    await asyncio.gather(*(publish(first + n, bus) for n, bus in enumerate(started)))
    for bus in started:
        await bus.stop()

asyncio.run(main(*map(int, sys.argv[1:])))
"""


async def test_sixteen_racing_publishers_and_four_readers(make_bus: Any, bindings: Path) -> None:
    """Every reader sees every message once, all in the same order, each publisher's own in its order."""
    processes, buses, each = 4, 4, 100
    code = PUBLISHERS.format(path=[entry for entry in sys.path if entry], root=str(bindings))
    readers = [Recorder(f"reader-{n}") for n in range(4)]
    for reader in readers:
        await make_bus(reader, batch_size=50)
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(n * buses), str(buses), str(each),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for n in range(processes)
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        await process.stdin.drain()
    total = processes * buses * each
    await eventually(lambda: all(len(reader.messages) >= total for reader in readers), seconds=60)
    for process in running:
        await process.communicate()
        assert process.returncode == 0
    for reader in readers:
        assert sorted(reader.numbers) == list(range(total)), "every message once"
        assert reader.numbers == readers[0].numbers, "one order for all"
    for publisher in range(processes * buses):
        own = [n for n in readers[0].numbers if n // each == publisher]
        assert own == sorted(own), "each publisher's own messages in its order"
    changes = sum(a // each != b // each for a, b in itertools.pairwise(readers[0].numbers))
    assert changes > processes * buses, "they did race"


async def test_system_messages_overtake_across_the_server(make_bus: Any) -> None:
    gate = asyncio.Event()

    async def wait(message: BusMessage) -> None:
        if getattr(message, "number", 0) == 0:
            await gate.wait()

    recorder = Recorder(handler=wait)
    bus = await make_bus(recorder)
    await bus.send(note(0))
    await bus.send(note(1))
    await bus.send(alarm(2))
    await eventually(lambda: recorder.numbers == [2])
    gate.set()
    await eventually(lambda: recorder.numbers == [2, 0, 1])
