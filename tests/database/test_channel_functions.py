"""Each channel's own functions: installed with it, put right, renewed by another version, gone with it."""

import asyncio

import asyncpg
import postgres
import pytest
from wire import Peer, payloads

from bus_operator import actions, provision, sql
from bus_operator.actions import DesiredChannel
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential

FUNCTIONS = """
select oid::regprocedure::text, pg_get_functiondef(oid), proowner::regrole::text, proacl::text
from pg_proc where pronamespace = 'pgmq_bus_channel'::regnamespace and proname ~ $1 order by 1
"""


def desire(name: str = "orders") -> DesiredChannel:
    spec = ChannelSpec.model_validate({"channel": name})
    return DesiredChannel.from_spec(spec, namespace="test", name="test", uid=Uid(f"uid-{name}"))


async def provide(database: postgres.Database, channel: postgres.Channel) -> tuple[actions.ChannelAction, ...]:
    held = HeldCredential(channel.username, channel.password)
    async with database.session() as session:
        return (await provision.provision(session, desire(channel.name), held)).actions


@pytest.fixture
async def peer(database: postgres.Database):
    """A peer of a channel in a database of its own."""
    channel = await database.create_channel("orders")
    session = await channel.connect()
    joined = await Peer.join(session, "orders")
    joined.joined["credential"] = channel
    yield joined
    session.terminate()


@pytest.mark.parametrize(
    "change",
    [
        "drop function {publish}",
        "drop function {publish}; drop function {read}",
        "create or replace function {read}(p_queue text, p_after bigint, p_acknowledge bigint, p_limit integer,"
        " p_roster bigint) returns table (msg_id bigint, message text, lost bigint, roster bigint) language sql"
        " as $$ select 1, 'forged', null, null $$",
        "alter function {publish} security invoker",
        "alter function {read} reset search_path",
        "alter function {publish} owner to postgres",
        "grant execute on function {publish} to public",
        "grant execute on function {read} to pgmq_bus_client",
        "revoke execute on function {publish} from {role}",
        "create function {publish}(p_queue text, p_messages varchar[]) returns text language sql as 'select 1'",
        "create aggregate {read}(integer) (sfunc = int4pl, stype = integer)",
        "drop schema pgmq_bus_channel cascade",
        "drop owned by {role}",
    ],
)
async def test_what_was_changed_by_hand_is_put_right(database: postgres.Database, peer: Peer, change: str):
    await peer.publish("before")
    token = peer.joined["token"]
    async with database.session() as session:
        expected = [tuple(row) for row in await session.fetch(FUNCTIONS, token)]
        assert len(expected) == 2
        await session.execute(
            change.format(
                publish=f"pgmq_bus_channel.publish_{token}",
                read=f"pgmq_bus_channel.read_{token}",
                role=f"bus_channel_{token}",
            )
        )
        # A missing schema is the installer's business.
        await provision.install(session)
    done = await provide(database, peer.joined["credential"])
    assert done[-1] == actions.InstallChannelFunctions(f"bus_{token}", in_place=False)
    assert await provide(database, peer.joined["credential"]) == ()
    async with database.session() as session:
        assert [tuple(row) for row in await session.fetch(FUNCTIONS, token)] == expected
    # The session that had called the functions before finds the new ones.
    await peer.publish("after")
    assert payloads(await peer.read()) == ["before", "after"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("language plpgsql", "cost 1000\nlanguage plpgsql"),
        ("p_messages", "p_texts"),
        ("p_queue text,", "p_queue varchar(40),"),
        ("p_queue text,", "p_queue varchar(40), p_more integer,"),
        ("out roster bigint", "out roster bigint, out more bigint"),
    ],
)
async def test_another_versions_functions_are_replaced(database, peer: Peer, monkeypatch, old: str, new: str):
    templates = sql.channel_functions()
    assert any(old in text for text in templates)
    monkeypatch.setattr(sql, "channel_functions", lambda: tuple(text.replace(old, new) for text in templates))
    done = (actions.InstallChannelFunctions(f"bus_{peer.joined['token']}", in_place=True),)
    assert await provide(database, peer.joined["credential"]) == done
    assert await provide(database, peer.joined["credential"]) == ()
    monkeypatch.undo()
    assert await provide(database, peer.joined["credential"]) == done
    assert await provide(database, peer.joined["credential"]) == ()
    await peer.publish("goes on")
    assert payloads(await peer.read()) == ["goes on"]


async def test_only_the_channels_own_role_may_call_them(database, peer: Peer):
    other = await database.create_channel("other")
    stranger = await other.connect()
    token = peer.joined["token"]
    for call in (f"publish_{token}('{peer.queue}', array['1'])", f"read_{token}('{peer.queue}', 0, null, 1, null)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for function"):
            await stranger.fetch(f"select * from pgmq_bus_channel.{call}")
    stranger.terminate()


async def test_they_go_with_their_channel(database, peer: Peer):
    other = await database.create_channel("other")
    async with database.session() as session:
        # What has their names goes as well.
        publish = f"pgmq_bus_channel.publish_{peer.joined['token']}"
        await session.execute(f"create function {publish}(a integer) returns text language sql as 'select 1'")
        assert await provision.deprovision(session, "orders", Uid("uid-orders"), "Delete")
        left = await session.fetch("select proname from pg_proc where pronamespace = 'pgmq_bus_channel'::regnamespace")
        token = other.username.removeprefix("bus_login_").removesuffix("_g1")
        assert {row[0] for row in left} == {f"publish_{token}", f"read_{token}"}


async def test_publishers_do_not_notice_that_functions_are_replaced(database, peer: Peer, monkeypatch):
    templates = sql.channel_functions()
    done = asyncio.Event()

    async def publish(channel: postgres.Channel) -> int:
        session = await channel.connect()
        publisher = await Peer.join(session, "orders")
        published = 0
        while not done.is_set():
            await publisher.publish(published)
            published += 1
        session.terminate()
        return published

    async with asyncio.TaskGroup() as group:
        publishers = [group.create_task(publish(peer.joined["credential"])) for _ in range(3)]
        for n in range(20):
            changed = tuple(f"{text}\n-- {n}" for text in templates)
            monkeypatch.setattr(sql, "channel_functions", lambda changed=changed: changed)
            assert len(await provide(database, peer.joined["credential"])) == 1
        done.set()
    published = sum(task.result() for task in publishers)
    assert published > 20
    assert len(await peer.read(limit=10000)) == min(published, 10000)
