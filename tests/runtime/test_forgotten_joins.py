"""A server that does not know of a peer's latest joining, as after a failover to a standby that was behind."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from postgres import Channel, Database
from recorder import Recorder, eventually, note
from wire import Peer

from bus_runtime import PublishError

COLUMNS = "queue, former_queue, acknowledged, delivered, position, address, last_seen, joined_at"


async def remember(database: Database) -> Callable[[], Awaitable[None]]:
    """What the registry knows of the ledger now; called later, it knows nothing else any more."""
    async with database.session() as connection:
        row = await connection.fetchrow(f"select {COLUMNS} from pgmq_bus.peer where name = 'ledger'")

    async def forget_the_rest() -> None:
        async with database.session() as connection:
            await _put_back(connection, row)

    return forget_the_rest


async def _put_back(connection: asyncpg.Connection, row: asyncpg.Record | None) -> None:
    if row is None:
        await connection.execute("delete from pgmq_bus.peer where name = 'ledger'")
        return
    values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await connection.execute(f"update pgmq_bus.peer set ({COLUMNS}) = ({values}) where name = 'ledger'", *row)


@pytest.mark.parametrize("known", [True, False], ids=["known-before", "new"])
async def test_a_named_peer_joins_again_by_itself(make_bus: Any, database: Database, known: bool) -> None:
    # It holds the log back, so that nothing is trimmed that the ledger has not read.
    archive = await make_bus(peer="archive")
    await archive.stop()
    if known:
        former, before = await make_bus(peer="ledger"), Recorder()
        await former.subscribe(before)
        await former.publish(note(0), raise_on_error=True)
        await eventually(lambda: before.numbers == [0])
        await former.stop()
    failover = await remember(database)
    lost: list[int] = []
    again: list[int] = []
    refusals: list[Exception] = []
    recorder = Recorder()
    options = {"peer": "ledger", "on_lost": lost.append, "on_redelivered": again.append}
    bus = await make_bus(recorder, on_refused=refusals.append, **options)
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1] and bus.stats().acknowledged == bus.stats().position)
    await failover()
    other = await make_bus()
    await other.publish(note(2), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1, 2] and bus.stats().rejoined == 1)
    await bus.publish(note(3), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1, 2, 3])
    assert (bus.stats().state, lost, again, refusals) == ("running", [], [], [])
    await eventually(lambda: bus.stats().acknowledged == bus.stats().position)
    await bus.stop()
    after = Recorder()
    await make_bus(after, **options)
    await other.publish(note(4), raise_on_error=True)
    await eventually(lambda: after.numbers == [4])
    assert (lost, again) == ([], [])


async def test_of_two_processes_that_were_forgotten_the_later_stays(make_bus: Any, database: Database) -> None:
    former = await make_bus(peer="ledger")
    await former.stop()
    failover = await remember(database)
    old, new = Recorder("old"), Recorder("new")
    earlier = await make_bus(old, peer="ledger")
    later = await make_bus(new, peer="ledger")
    await failover()
    other = await make_bus()
    await eventually(lambda: earlier.stats().state == "refused" and later.stats().rejoined, seconds=20)
    taken = len(old.numbers)
    with pytest.raises(PublishError):
        await earlier.publish(note(9), raise_on_error=True)
    for number in range(3):
        await other.publish(note(number), raise_on_error=True)
        await later.publish(note(number), raise_on_error=True)
    await eventually(lambda: new.numbers == [0, 0, 1, 1, 2, 2])
    assert (later.stats().state, len(old.numbers)) == ("running", taken)
    assert later.stats().rejoined == 1, "it did not have to do so twice"


async def test_a_claim_of_its_own_that_takes_effect_late_refuses_nobody(
    make_bus: Any, channel: Channel, database: Database
) -> None:
    recorder = Recorder()
    bus = await make_bus(recorder, peer="ledger")
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    session = await channel.connect()
    try:
        await Peer.join(session, channel.name, peer="ledger", since=bus._link._session.membership.since)
    finally:
        session.terminate()
    await eventually(lambda: bus.stats().rejoined == 1)
    await bus.publish(note(2), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1, 2])
    assert bus.stats().state == "running"


async def test_an_unnamed_peer_gets_what_came_before_it_joined_again(make_bus: Any, database: Database) -> None:
    archive = await make_bus(peer="archive")
    await archive.stop()
    recorder, lost = Recorder(), list[int]()
    bus = await make_bus(recorder, on_lost=lost.append)
    await bus.publish(note(1), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1])
    async with database.session() as connection:
        await connection.execute("delete from pgmq_bus.peer where name is null")
    other = await make_bus()
    for number in (2, 3):
        await other.publish(note(number), raise_on_error=True)
    await eventually(lambda: recorder.numbers == [1, 2, 3] and bus.stats().rejoined == 1)
    assert lost == []
