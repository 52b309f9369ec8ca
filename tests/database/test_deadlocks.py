"""Everything that takes locks, at once on one channel: nobody waits for who waits for him."""

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import postgres
import pytest
from logs import channel_id, jump
from wire import Peer, payloads

from bus_operator import provision, sql
from bus_operator.actions import DesiredChannel
from bus_operator.errors import TransientError
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential

SECONDS = 4.0


class Crowd:
    """Tasks that do something over and over until the time is up, and how often each did."""

    def __init__(self, database: postgres.Database, channel: postgres.Channel, connect: Any) -> None:
        self.database = database
        self.channel = channel
        self.connect = connect
        self.random = random.Random(7)
        self.over = False
        self.rounds: dict[str, int] = {}

    async def peer(self, **options: Any) -> Peer:
        return await Peer.join(await self.connect(self.channel), self.channel.name, **options)

    async def superuser(self) -> asyncpg.Connection:
        password = self.database.server.password
        session: asyncpg.Connection = await self.connect(
            dataclasses.replace(self.channel, username=postgres.SUPERUSER, password=password)
        )
        return session

    async def repeat(self, name: str, step: Callable[[], Awaitable[Any]]) -> None:
        while not self.over:
            await step()
            self.rounds[name] = self.rounds.get(name, 0) + 1
            await asyncio.sleep(0)

    async def publisher(self) -> None:
        peer = await self.peer()

        async def step() -> None:
            await peer.publish(*range(self.random.choice([1, 1, 1, 5, 600])))

        await self.repeat("publish", step)

    async def mixer(self) -> None:
        """Reads, acknowledges and publishes in one transaction, in any order."""
        peer = await self.peer()

        async def step() -> None:
            async with peer.session.transaction():
                calls = [
                    lambda: peer.read(acknowledge=peer.after),
                    lambda: peer.publish("mixed"),
                    peer.fetch_roster,
                    peer.notify,
                ]
                self.random.shuffle(calls)
                for call in calls:
                    await call()

        await self.repeat("mix", step)

    async def reader(self) -> None:
        peer = await self.peer()
        await self.repeat("read", lambda: peer.read(acknowledge=peer.after, limit=1000))

    async def foreigner(self) -> None:
        peer = await Peer.bus_join(await self.connect(self.channel), self.channel.name)

        async def step() -> None:
            await peer.bus_publish("foreign")
            rows = await peer.bus_subscribe(quantity=1000)
            if rows:
                await peer.bus_archive(rows[-1].msg_id)

        await self.repeat("wrap", step)

    async def visitor(self) -> None:
        session = await self.connect(self.channel)

        async def step() -> None:
            peer = await Peer.join(session, self.channel.name, address="10.0.0.1:4000")
            await peer.wake_by(None, listens=True)
            await peer.read(limit=10)
            assert await peer.leave()

        await self.repeat("visit", step)

    async def rival(self) -> None:
        """One of several processes that want to be the same durable peer."""
        session = await self.connect(self.channel)

        async def step() -> None:
            peer = await Peer.join(session, self.channel.name, peer="worker")
            try:
                async with session.transaction():
                    await peer.read(acknowledge=peer.joined["position"], limit=50)
                    await peer.publish("rival")
                await peer.wake_by("10.0.0.1:4000")
                await peer.leave()
            except asyncpg.PostgresError as error:
                if error.sqlstate not in ("BUS01", "42501"):
                    raise

        await self.repeat("rival", step)

    async def trimmer(self) -> None:
        """Trims all the time, and forgets peers that were not seen for long."""
        admin = await self.superuser()
        number = await channel_id(admin, self.channel.name)

        async def step() -> None:
            await admin.execute(
                "insert into pgmq_bus.peer (queue, channel_id, login, acknowledged, delivered, position, last_seen)"
                " values (gen_random_uuid(), $1, 'ghost', 0, 0, 0, '-infinity')",
                number,
            )
            await admin.execute("select pgmq_bus.trim($1, true)", number)

        await self.repeat("trim", step)

    async def crasher(self) -> None:
        """What the first publish after a crash does."""
        admin = await self.superuser()

        async def step() -> None:
            await jump(admin, self.channel.name)
            await asyncio.sleep(0.1)

        await self.repeat("recover", step)

    async def administrator(self, durabilities: list[str]) -> None:
        held = HeldCredential(self.channel.username, self.channel.password)
        uid = Uid(f"uid-{self.channel.name}")

        async def step() -> None:
            spec = ChannelSpec.model_validate(
                {
                    "channel": self.channel.name,
                    "durability": self.random.choice(durabilities),
                    "retention": {"maxMessages": self.random.choice([1000, 5000])},
                }
            )
            desired = DesiredChannel.from_spec(spec, namespace="test", name="test", uid=uid)
            async with self.database.session() as session:
                try:
                    await provision.provision(session, desired, held)
                except TransientError as error:
                    if error.reason != "ChannelBusy":
                        raise
                await session.execute(sql.query("rotate_channel_secrets"), 1)

        await self.repeat("administer", step)


@pytest.fixture
async def crowd(database, connect):
    """A crowd on a channel of a database whose server looks for deadlocks soon, not after a second of waiting."""
    admin = await database.server.connect(database.name)
    await admin.execute(f"alter database {database.name} set deadlock_timeout = '20ms'")
    await admin.close()
    return Crowd(database, await database.create_channel(limits={"maxPeers": 10_000}), connect)


async def run(crowd: Crowd, kinds: int, *members: Awaitable[None]) -> None:
    """Has all of them go on for a while: so many kinds, each of which does what it does at least twice."""
    log = len(crowd.database.server.log)
    witness = await crowd.peer(peer="witness")
    try:
        async with asyncio.timeout(150), asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(member)
            await asyncio.sleep(SECONDS)
            # Longer on a machine on which not everybody has had a turn by then.
            while len(crowd.rounds) < kinds or min(crowd.rounds.values()) < 2:
                await asyncio.sleep(0.1)
            crowd.over = True
    except TimeoutError:
        pytest.fail(f"not everybody had a turn, or came to an end: {crowd.rounds}")
    assert "deadlock detected" not in crowd.database.server.log[log:]
    # And the channel goes on.
    (last,) = await witness.publish("last")
    assert payloads(await witness.read(after=last - 1)) == ["last"]


@pytest.mark.slow
async def test_nobody_deadlocks(crowd: Crowd):
    publishers = [crowd.publisher(), crowd.publisher(), crowd.mixer(), crowd.mixer(), crowd.foreigner()]
    comers_and_goers = [crowd.visitor(), crowd.visitor(), crowd.visitor(), crowd.rival(), crowd.rival(), crowd.rival()]
    others = [crowd.reader(), crowd.reader(), crowd.trimmer(), crowd.crasher(), crowd.administrator(["Sync", "Async"])]
    await run(crowd, 9, *publishers, *comers_and_goers, *others)


@pytest.mark.slow
async def test_nobody_deadlocks_while_the_log_is_rewritten(crowd: Crowd):
    """Whoever reads and then publishes in one transaction may: a log cannot be rewritten behind a reader's back."""
    publishers = [crowd.publisher(), crowd.publisher(), crowd.foreigner()]
    others = [crowd.visitor(), crowd.visitor(), crowd.reader(), crowd.reader(), crowd.trimmer(), crowd.crasher()]
    await run(crowd, 7, *publishers, *others, crowd.administrator(["Sync", "Unlogged"]))
