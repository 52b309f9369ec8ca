"""Logging in as a channel's login and trying: a sound channel passes without a trace, and a planted hole is found and named."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import postgres
import pytest
from wire import Peer, payloads

from bus_operator import isolation, sql
from bus_operator.probes import Verdict
from bus_operator.roles import IssuedCredential


async def verify(database: postgres.Database, channel: postgres.Channel) -> Verdict:
    async with database.session() as session:
        subject = await isolation.find_subject(session, channel.name)
    assert subject is not None
    issued = IssuedCredential(channel.username, channel.password, channel.generation)
    return await isolation.verify(channel.endpoint, issued, subject)


@pytest.fixture
async def other(make_channel) -> postgres.Channel:
    return await make_channel()


@pytest.fixture
async def channel(make_channel, other) -> AsyncIterator[postgres.Channel]:
    return await make_channel()


async def test_a_sound_channel(shared, channel):
    verdict = await verify(shared, channel)
    assert verdict == Verdict(refused=len(sql.denied_probes()))
    assert verdict.reason == "Verified"


async def test_a_channel_that_is_alone(database: postgres.Database):
    """What would be aimed at another channel is left out."""
    verdict = await verify(database, await database.create_channel())
    assert verdict == Verdict(refused=sum("{{other_" not in text for *_, text in sql.denied_probes()))


async def test_nothing_remains(shared, channel, admin, join):
    """No id is used up, nobody is woken, no peer is seen, and a publisher does not wait."""
    peer = await join(channel)
    woken: list[object] = []
    await peer.session.add_listener(peer.joined["wake"], lambda *notification: woken.append(notification))
    await peer.publish(1)
    log = f"pgmq.q_bus_{peer.joined['token']}"
    state = f"select (select last_value from {log}_msg_id_seq), (select count(*) from {log}), (select roster from"
    state += f" pgmq_bus.channel where name = '{channel.name}'), (select count(*) from pgmq_bus.peer)"
    before = await admin.fetchrow(state)
    assert (await verify(shared, channel)).reason == "Verified"
    assert await admin.fetchrow(state) == before
    await peer.publish(2)
    assert payloads(await peer.read()) == [1, 2]
    assert woken == []


async def test_publishers_go_on_meanwhile(shared, channel, join):
    publisher = await join(channel)
    done = asyncio.Event()
    published = 0

    async def publish() -> None:
        nonlocal published
        while not done.is_set():
            await publisher.publish(published)
            published += 1

    task = asyncio.create_task(publish())
    for _ in range(3):
        assert (await verify(shared, channel)).reason == "Verified"
    done.set()
    await task
    assert payloads(await publisher.read(limit=10_000)) == list(range(published))


# ruff: noqa: E501  a table, with a row a line
HOLES = [
    ("grant usage on schema pgmq to {role}; grant select on {log} to {role}", "revoke usage on schema pgmq from {role}; revoke all on {log} from {role}", "MayReadOwnLog"),
    ("grant usage on schema pgmq_bus to public; grant select on pgmq_bus.peer to public", "revoke usage on schema pgmq_bus from public; revoke all on pgmq_bus.peer from public", "MayReadPeers"),
    ("grant pgmq_bus_owner to {login}", "revoke pgmq_bus_owner from {login}", "MayBecomeOwner"),
    ("grant pg_read_all_data to {login}", "revoke pg_read_all_data from {login}", "MayBecomeReader"),
    ("grant {other} to {role}", "revoke {other} from {role}", "MayBecomeOther"),
    ("grant create on schema public to public", "revoke create on schema public from public", "MayCreateFunctionInPublic"),
    ("grant create on database {database} to public", "revoke create on database {database} from public", "MayCreateSchema"),
    ("grant execute on function pg_read_file(text) to public", "revoke execute on function pg_read_file(text) from public", "MayReadFile"),
    ("alter role {login} createrole", "alter role {login} nocreaterole", "MayCreateRole"),
    ("alter role {login} superuser", "alter role {login} nosuperuser", "MayBecomeAdministrator"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "remove", "reason"), HOLES, ids=[reason for *_, reason in HOLES])
async def test_a_hole(shared, channel, admin, plant: str, remove: str, reason: str):
    subject = await isolation.find_subject(admin, channel.name)
    assert subject is not None
    names = {
        "login": channel.username,
        "role": subject.role,
        "other": subject.other_role,
        "log": f"pgmq.q_{subject.queue}",
        "database": shared.name,
    }
    await admin.execute(plant.format(**names))
    try:
        verdict = await verify(shared, channel)
    finally:
        await admin.execute(remove.format(**names))
    assert reason in {Verdict(succeeded=(probe,)).reason for probe in verdict.succeeded}
    assert await verify(shared, channel) == Verdict(refused=len(sql.denied_probes()))


BROKEN = [
    ("revoke {role} from {login}", "grant {role} to {login}", "permission denied for schema pgmq_bus_v1"),
    ("revoke pgmq_bus_client from {role}", "grant pgmq_bus_client to {role}", "permission denied for schema pgmq_bus_v1"),
    ("alter role {login} nologin", "alter role {login} login", "its login is refused"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "repair", "words"), BROKEN, ids=[case[0] for case in BROKEN])
async def test_what_is_allowed_does_not_work(shared, channel, admin, damage: str, repair: str, words: str):
    names = {"login": channel.username, "role": channel.username.replace("login", "channel").removesuffix("_g1")}
    await admin.execute(damage.format(**names))
    verdict = await verify(shared, channel)
    await admin.execute(repair.format(**names))
    assert verdict.reason == "AllowedCallFailed"
    assert words in (verdict.broken or "")


async def test_a_busy_channel_shows_nothing(shared, channel, join):
    """A member that keeps its transaction open after publishing."""
    peer: Peer = await join(channel)
    transaction = peer.session.transaction()
    await transaction.start()
    await peer.publish(1)
    verdict = await verify(shared, channel)
    await transaction.rollback()
    assert verdict.reason == "Unclear"
    assert verdict.refused == len(sql.denied_probes())


async def test_a_login_without_a_free_connection_shows_nothing(shared, make_channel, connect):
    channel = await make_channel(limits={"maxConnections": 1})
    for _ in range(2):
        await connect(channel)
    verdict = await verify(shared, channel)
    assert "too many connections" in (verdict.unclear or "")


async def test_after_a_crash_it_leaves_the_log_alone(shared, channel, admin: asyncpg.Connection):
    await admin.execute(
        "delete from pgmq_bus.channel_alive where channel_id = (select id from pgmq_bus.channel where name = $1)",
        channel.name,
    )
    assert (await verify(shared, channel)).reason == "Verified"
    assert not await admin.fetchval(
        "select exists (select from pgmq_bus.channel_alive as a join pgmq_bus.channel as c on c.id = a.channel_id"
        " where c.name = $1)",
        channel.name,
    )
