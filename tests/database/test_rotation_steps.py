"""Rotation in a real server, step by step: issued, verified, published, retired; interrupted anywhere."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import postgres
import pytest
from wire import Peer, payloads

from bus_operator import provision, verification
from bus_operator.actions import DesiredChannel, DropLogin, IssueCredential, PublishLogin, WarnOfLogin
from bus_operator.catalog import LoginUser
from bus_operator.errors import ConnectionFailedError, TransientError
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential, RotationRules
from bus_operator.roles import IssuedCredential

RULES = RotationRules(unused=timedelta(0))
LATER = "update pgmq_bus.login set published_at = published_at - $1::text::interval"


class KilledError(Exception):
    """In the place of a kill -9."""


@dataclass
class Channel:
    """A channel, the operator that looks at it, and the Secret."""

    database: postgres.Database
    session: asyncpg.Connection
    held: HeldCredential | None = None

    async def look(self, rules: RotationRules = RULES, *, deliver: provision.Deliver | None = None) -> list[object]:
        """One reconciliation; what was done about the credentials."""
        spec = ChannelSpec.model_validate({"channel": "orders", "peerTimeout": "10s"})
        desired = DesiredChannel.from_spec(spec, namespace="team", name="orders", uid=Uid("uid"))

        async def write(issued: IssuedCredential) -> None:
            await verification.verify(issued, self.database.admin.endpoint, self.database.admin.endpoint)
            self.held = HeldCredential(issued.username, issued.password)

        done = await provision.provision(self.session, desired, self.held, rotation=rules, deliver=deliver or write)
        kinds = IssueCredential | PublishLogin | DropLogin | WarnOfLogin
        return [action for action in done.actions if isinstance(action, kinds)]

    async def login(self) -> asyncpg.Connection:
        assert self.held is not None
        return await asyncpg.connect(self.database.admin.endpoint.uri(self.held.username, self.held.password))

    async def generations(self) -> list[int]:
        rows = await self.session.fetch("select generation from pgmq_bus.login order by 1")
        roles = await self.session.fetchval(
            "select count(*) from pg_roles where rolname in (select role from pgmq_bus.login)"
        )
        assert roles == len(rows)
        return [row[0] for row in rows]


@pytest.fixture
async def channel(database: postgres.Database) -> AsyncIterator[Channel]:
    async with database.session() as session:
        made = Channel(database, session)
        await made.look()
        yield made


async def test_a_rotation_that_disturbs_nobody(channel: Channel) -> None:
    before = await channel.login()
    peer = await Peer.join(before, "orders")
    await peer.publish(1)
    asked = replace(RULES, request="now")
    assert await channel.look(asked) == [IssueCredential(2, 101, request="now")]
    after = await channel.login()
    # Its membership is the channel's and not the login's: the same peer goes on in either session.
    moved = replace(peer, session=after)
    await moved.publish(2)
    await peer.publish(3)
    assert payloads(await moved.read()) == [1, 2, 3]
    for _ in range(3):
        assert await channel.look(asked) == [], "used by a session"
    await before.close()
    await channel.session.execute("select pg_sleep(0.01)")
    # Not by a session now, but the peer's last call was under that login.
    await channel.session.execute("update pgmq_bus.peer set last_seen = clock_timestamp() - interval '4 seconds'")
    assert await channel.look(asked) == []
    await moved.read(acknowledge=3)
    while not (done := await channel.look(asked)):
        pass
    assert [type(action) for action in done] == [DropLogin]
    assert await channel.generations() == [2]
    assert await channel.look(asked) == []
    await moved.publish(4)
    assert payloads(await moved.read()) == [4]
    await after.close()


async def test_killed_before_the_secret_was_written(channel: Channel) -> None:
    first = channel.held

    async def killed(_: IssuedCredential) -> None:
        raise KilledError

    asked = replace(RULES, request="now")
    for again in (False, True, True):
        with pytest.raises(KilledError):
            await channel.look(asked, deliver=killed)
        assert await channel.generations() == [1, 2], again
    assert channel.held == first
    await (await channel.login()).close()
    assert await channel.look(asked) == [IssueCredential(2, 101, request="now", again=True)]
    await (await channel.login()).close()
    assert await channel.generations() == [1, 2]


async def test_killed_after_the_secret_was_written(channel: Channel) -> None:
    async def killed(issued: IssuedCredential) -> None:
        channel.held = HeldCredential(issued.username, issued.password)
        raise KilledError

    asked = replace(RULES, request="now")
    with pytest.raises(KilledError):
        await channel.look(asked, deliver=killed)
    assert await channel.look(asked) == [PublishLogin(channel.held.username, 2)]
    while await channel.generations() != [2]:
        await channel.look(asked)
    assert await channel.look(asked) == []


async def test_the_very_first_credential_is_issued_again_too(database: postgres.Database) -> None:
    async def killed(_: IssuedCredential) -> None:
        raise KilledError

    async with database.session() as session:
        channel = Channel(database, session)
        with pytest.raises(KilledError):
            await channel.look(deliver=killed)
        assert await channel.look() == [IssueCredential(1, 101, again=True)]
        await (await channel.login()).close()
        assert await channel.generations() == [1]


async def test_who_uses_it_at_the_end_of_the_overlap(channel: Channel) -> None:
    session = await channel.login()
    peer = await Peer.join(session, "orders", host="billing-7f9c", application="billing")
    asked = replace(RULES, request="now")
    await channel.look(asked)
    await channel.session.execute(LATER, "1 hour")
    name = f"{channel.held.username[:-1]}1"
    assert await channel.look(asked) == [WarnOfLogin(name, 1)]
    assert await channel.look(asked) == []
    await channel.session.execute(LATER, "23 hours")
    spec = ChannelSpec.model_validate({"channel": "orders", "peerTimeout": "10s"})
    desired = DesiredChannel.from_spec(spec, namespace="team", name="orders", uid=Uid("uid"))
    done = await provision.provision(channel.session, desired, channel.held, rotation=asked)
    assert done.actions == (DropLogin(name, 1),)
    users = done.before.logins[0].users
    assert LoginUser("billing-7f9c", "billing", None) in users
    assert [user.address for user in users if user.host is None] == ["127.0.0.1"]
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await peer.publish("x")
    session.terminate()


class TestVerifying:
    async def test_what_works(self, database: postgres.Database) -> None:
        made = await database.create_channel()
        issued = IssuedCredential(made.username, made.password, 1)
        assert await verification.verify(issued, made.endpoint, made.endpoint) == f"verified at {made.endpoint}"
        elsewhere = replace(made.endpoint, port=1)
        said = await verification.verify(issued, made.endpoint, elsewhere)
        assert said == f"verified at {made.endpoint}; {elsewhere}, where pods connect, is not reached from here"

    async def test_what_does_not(self, database: postgres.Database, tmp_path: Path) -> None:
        made = await database.create_channel()
        wrong = IssuedCredential(made.username, "wrong", 7)
        with pytest.raises(TransientError, match=r"generation 7 does not work at .*pg_hba.conf") as caught:
            await verification.verify(wrong, made.endpoint, made.endpoint)
        assert caught.value.reason == "VerificationFailed"
        assert "wrong" not in str(caught.value)
        issued = IssuedCredential(made.username, made.password, 7)
        with pytest.raises(ConnectionFailedError):
            await verification.verify(issued, replace(made.endpoint, port=1), made.endpoint)
        async with database.session() as session:
            role = await session.fetchval("select role from pgmq_bus.channel")
            await session.execute(f"revoke {role} from {made.username}")
        with pytest.raises(TransientError, match="may not use the bus"):
            await verification.verify(issued, made.endpoint, made.endpoint)
