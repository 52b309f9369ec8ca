"""One BusDatabase over several databases of a server: made, filled evenly, and no channel ever in two of them."""

import asyncio
import secrets
from collections import Counter
from dataclasses import replace

import asyncpg
import postgres
import pytest

from bus_operator import provision, shards
from bus_operator.actions import DesiredChannel
from bus_operator.database import AdminConnection, connect
from bus_operator.errors import BusError, ChannelConflictError, SpecError
from bus_operator.model import ChannelSpec, Uid
from bus_operator.roles import IssuedCredential
from bus_operator.shards import Report, Shards


@pytest.fixture
async def admin(server: postgres.Server):
    """An administrator's way into a database of its own; its shards go with it."""
    created = await postgres.create_database(server)
    yield created.admin
    await postgres.drop_database(created)


async def install(admin: AdminConnection, count: int) -> Report:
    async with connect(admin) as session:
        return await shards.install(session, admin, count)


def desire(name: str, owner: str = "team") -> DesiredChannel:
    spec = ChannelSpec.model_validate({"channel": name})
    return DesiredChannel.from_spec(spec, namespace=owner, name=name, uid=Uid(f"{owner}-{name}"))


async def make(where: Shards, name: str, owner: str = "team", last: int | None = None) -> int:
    """Provisions a channel; the index of the shard that it is in."""
    async with shards.placed(where, name, last) as (shard, session, _):
        await provision.provision(session, desire(name, owner), None)
        return shard.index


async def holders(where: Shards) -> dict[str, list[int]]:
    """The channels, and in which shards each is."""
    found: dict[str, list[int]] = {}
    for shard in where.usable:
        async with connect(shard.admin) as session:
            for (name,) in await session.fetch("select name from pgmq_bus.channel"):
                found.setdefault(name, []).append(shard.index)
    return found


async def test_databases_are_created_once(admin: AdminConnection):
    first = await install(admin, 3)
    name = admin.endpoint.database
    assert [shard.admin.endpoint.database for shard in first.shards.usable] == [name, f"{name}_bus_1", f"{name}_bus_2"]
    assert [shard.index for shard in first.done] == [1, 2]
    assert (first.failure, first.shards.unseen) == (None, False)
    async with connect(admin) as session:
        kinds = await session.fetch(
            "select distinct encoding, datcollate, datctype, datdba from pg_database where starts_with(datname, $1)",
            name,
        )
        assert len(kinds) == 1
    second = await install(admin, 3)
    assert second.done == {}
    assert second.shards == first.shards
    assert second.observed.schema_version == first.observed.schema_version


async def test_one_shard_is_the_database_itself(admin: AdminConnection):
    report = await install(admin, 1)
    assert [shard.admin for shard in report.shards.usable] == [admin]
    assert await make(report.shards, "orders") == 0


async def test_channels_go_where_the_fewest_are_and_stay(admin: AdminConnection):
    where = (await install(admin, 3)).shards
    homes = {name: await make(where, name) for name in "abcdefg"}
    assert list(homes.values()) == [0, 1, 2, 0, 1, 2, 0]
    async with connect(where.usable[0].admin) as session:
        for name in "adg":
            await provision.deprovision(session, name, Uid(f"team-{name}"), "Delete")
    assert [await make(where, name) for name in "hi"] == [0, 0]
    # Neither is moved, whether it is known where it was or not.
    for name in "bcef":
        assert await make(where, name) == homes[name]
        assert await make(where, name, last=homes[name]) == homes[name]
        assert await make(where, name, last=0) == homes[name]
    assert (await install(admin, 3)).channels == 6


async def test_the_sessions_of_a_channel_are_in_its_shard(admin: AdminConnection):
    where = (await install(admin, 2)).shards
    await make(where, "orders")
    async with shards.placed(where, "audit") as (shard, session, _):
        issued = (await provision.provision(session, desire("audit"), None)).issued
    assert shard.admin.endpoint.database == f"{admin.endpoint.database}_bus_1"
    client = await asyncpg.connect(shard.admin.endpoint.uri(issued.username, issued.password))
    assert await client.fetchval("select public.bus_join('audit')")
    await client.close()


async def test_what_was_retained_is_found_again(admin: AdminConnection):
    where = (await install(admin, 2)).shards
    homes = {name: await make(where, name) for name in ("orders", "audit")}
    found = await shards.find(where, "audit")
    async with connect(found.admin) as session:
        await provision.deprovision(session, "audit", Uid("team-audit"), "Retain")
    assert await make(where, "audit") == homes["audit"] == found.index == 1
    assert await shards.find(where, "unheard-of") is None
    with pytest.raises(ChannelConflictError, match="belongs to BusChannel team/audit"):
        await make(where, "audit", owner="other")


async def test_one_name_at_the_same_time(admin: AdminConnection):
    """Different BusChannels want the same name while none of the shards has it."""
    where = (await install(admin, 4)).shards
    await make(where, "another")
    wanted = [(name, owner) for name in ("orders", "audit", "billing") for owner in ("one", "two", "three")]
    done = await asyncio.gather(*(make(where, *item) for item in wanted), return_exceptions=True)
    for result in done:
        assert isinstance(result, int | ChannelConflictError), repr(result)
    found = await holders(where)
    assert {name: len(indexes) for name, indexes in found.items()} == dict.fromkeys(found, 1)
    assert found.keys() == {"another", "orders", "audit", "billing"}
    assert len(Counter(indexes[0] for indexes in found.values())) == 4


async def test_whoever_delivers_a_credential_holds_up_nobody(admin: AdminConnection):
    """Logging in with it and writing it may take long, and the server does not let a transaction wait for that."""
    where = (await install(admin, 2)).shards
    async with shards.placed(where, "orders") as place:

        async def deliver(_: IssuedCredential) -> None:
            await place.taken()
            async with asyncio.timeout(30):
                assert await make(where, "audit") == 1

        await provision.provision(place.session, desire("orders"), None, deliver=deliver)
        assert place.shard.index == 0
    assert (await holders(where)).keys() == {"orders", "audit"}


async def test_growing(admin: AdminConnection):
    before = (await install(admin, 1)).shards
    homes = {name: await make(before, name) for name in "ab"}
    where = (await install(admin, 2)).shards
    assert [await make(where, name) for name in "cde"] == [1, 1, 0]
    assert {name: await make(where, name, last=0) for name in "ab"} == homes


async def test_fewer_than_before(admin: AdminConnection):
    """As after a BusDatabase was deleted and made anew: what is in the others stays there and is looked after."""
    where = (await install(admin, 3)).shards
    homes = {name: await make(where, name) for name in "abc"}
    async with connect(where.at(2).admin) as session:
        await session.execute("drop function public.bus_join")
    fewer = await install(admin, 1)
    assert [shard.index for shard in fewer.done] == [2]
    assert (fewer.channels, len(fewer.shards.usable)) == (3, 3)
    assert {name: await make(fewer.shards, name) for name in "abc"} == homes
    assert [await make(fewer.shards, name) for name in "de"] == [0, 0]


async def test_a_database_that_only_has_such_a_name_is_left_alone(admin: AdminConnection):
    async with connect(admin) as session:
        for suffix in ("_bus_7", "_bus_x", "_bus_01", "_bus_"):
            await session.execute(f"create database {admin.endpoint.database}{suffix} template template0")
    report = await install(admin, 1)
    assert (len(report.shards.usable), report.failure, report.shards.unseen) == (1, None, False)
    async with connect(admin.for_database(f"{admin.endpoint.database}_bus_7")) as session:
        assert await session.fetchval("select to_regnamespace('pgmq_bus')") is None


@pytest.fixture
async def planted(admin: AdminConnection):
    """What somebody made who may create databases, and knows what the first shard would be called."""
    name, role = f"{admin.endpoint.database}_bus_1", f"planter_{secrets.token_hex(4)}"
    async with connect(admin) as session:
        await session.execute(f"create role {role} createdb")
        await session.execute(f"create database {name} owner {role} template template0")
    planted = admin.for_database(name)
    async with connect(planted) as session:
        await session.execute(f"create schema pgmq_bus authorization {role}")
    yield planted
    async with connect(admin) as session:
        await session.execute(f"drop database {name} with (force)")
        await session.execute(f"drop role {role}")


async def test_what_somebody_planted_holds_up_nobody(admin: AdminConnection, planted: AdminConnection):
    """Also where the administrator is a superuser, who could use it."""
    report = await install(admin, 1)
    assert (len(report.shards.usable), report.failure, report.shards.unseen) == (1, None, False)
    assert await make(report.shards, "orders") == 0


async def test_what_somebody_planted_is_no_shard(admin: AdminConnection, planted: AdminConnection):
    """He could drop it, with the messages in it."""
    async with connect(planted) as session:
        await session.execute("drop schema pgmq_bus")
    report = await install(admin, 2)
    assert [shard.index for shard in report.shards.usable] == [0]
    assert report.failure is not None
    assert report.failure.reason == "ShardMissing"
    command = f'ALTER DATABASE "{planted.endpoint.database}" OWNER TO "{admin.username}"'
    assert command in str(report.failure)
    async with connect(planted) as session:
        assert await session.fetchval("select to_regnamespace('pgmq_bus')") is None
        await session.execute(command)
    report = await install(admin, 2)
    assert [shard.index for shard in report.shards.usable] == [0, 1]


async def test_a_shard_that_cannot_be_used_stops_only_what_it_may_hold(admin: AdminConnection):
    where = (await install(admin, 3)).shards
    homes = {name: await make(where, name) for name in "abc"}
    async with connect(admin) as session:
        broken = where.at(1).admin.endpoint.database
        await session.execute(f"alter database {broken} allow_connections false")
        report = await install(admin, 3)
        assert isinstance(report.failure, BusError)
        assert broken in str(report.failure)
        assert report.shards.unseen
        for name in "ac":
            assert await make(report.shards, name, last=homes[name]) == homes[name]
            assert await make(report.shards, name) == homes[name]
        for name, last in (("b", 1), ("b", None), ("new", None)):
            with pytest.raises(SpecError) as caught:
                await make(report.shards, name, last=last)
            assert caught.value.reason == "DatabaseUnavailable"
            with pytest.raises(SpecError):
                await shards.find(report.shards, name, last)
        await session.execute(f"alter database {broken} allow_connections true")
    assert (await install(admin, 3)).failure is None


async def test_a_channel_whose_registry_lost_it_goes_where_it_was(admin: AdminConnection):
    where = (await install(admin, 2)).shards
    assert await make(where, "orders", last=1) == 1


async def test_a_name_that_is_too_long(admin: AdminConnection, server: postgres.Server):
    name = admin.endpoint.database + "x" * (58 - len(admin.endpoint.database))
    session = await server.connect()
    await session.execute(f"create database {name} template template0")
    report = await install(replace(admin, endpoint=replace(admin.endpoint, database=name)), 3)
    await session.execute(f"drop database {name} with (force)")
    await session.close()
    assert report.failure.reason == "ShardMissing"
    assert "use a database with a shorter name" in str(report.failure)
