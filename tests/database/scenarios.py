"""What an operator does in a database, each with what was there before: to be interrupted anywhere."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
import former
import postgres
from chaos.steps import Step, Steps
from end_state import State, channel_tokens, end_state
from structure import structure
from wire import Peer

from bus_operator import provision, shards, verification
from bus_operator.actions import DesiredChannel
from bus_operator.database import AdminConnection, connect
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential, RotationRules
from bus_operator.roles import IssuedCredential

Found = TypeVar("Found")
RULES = RotationRules(unused=timedelta(0))


class KilledError(Exception):
    """Was killed."""


@dataclass
class Stage:
    """A database, the Secret of the channel `orders` in it, and the administrator whom operators come as."""

    database: postgres.Database
    admin: AdminConnection
    steps: Steps
    uid: str = "uid"
    spec: dict[str, Any] = field(default_factory=lambda: {"peerTimeout": "10m"})
    rules: RotationRules = RULES
    secret: HeldCredential | None = None

    async def provision(self) -> bool:
        """One look at the channel; whether nothing is left to do."""
        life = self.steps.life

        async def deliver(issued: IssuedCredential) -> None:
            await verification.verify(issued, self.admin.endpoint, self.admin.endpoint)
            if not self.steps.take(Step("write the Secret", lasts=True), life):
                raise KilledError
            self.secret = HeldCredential(issued.username, issued.password)

        spec = ChannelSpec.model_validate({"channel": "orders", **self.spec})
        desired = DesiredChannel.from_spec(spec, namespace="team", name="orders", uid=Uid(self.uid))
        async with connect(self.admin) as session:
            done = await provision.provision(session, desired, self.secret, rotation=self.rules, deliver=deliver)
        return not done.actions and sum(not login.is_retired for login in done.channel.logins) == 1

    async def publish(self) -> None:
        """Three messages, of which the durable peer `worker` has acknowledged one."""
        session = await self.log_in()
        try:
            peer = await Peer.join(session, "orders", peer="worker")
            first, *_ = await peer.publish(1, 2, 3)
            await peer.read(limit=2)
            await peer.read(acknowledge=first, limit=0)
        finally:
            await session.close()
        # As if that were a while ago: it is no evidence that the login is used.
        await self.run("update pgmq_bus.peer set last_seen = last_seen - interval '5 minutes'")

    async def log_in(self) -> asyncpg.Connection:
        """A session with what the Secret holds."""
        assert self.secret is not None
        return await asyncpg.connect(self.database.server.uri(self.database.name, *self.secret_pair()))

    def secret_pair(self) -> tuple[str, str]:
        assert self.secret is not None
        return self.secret.username, self.secret.password

    async def run(self, statements: str) -> None:
        """By hand, as the administrator; with the names of what belongs to the channel put in."""
        token = self.secret.username.split("_")[2] if self.secret is not None else ""
        names = {"token": token, "login": f"bus_login_{token}_g1", "role": f"bus_channel_{token}"}
        admin = self.admin
        session = await asyncpg.connect(self.database.server.uri(self.database.name, admin.username, admin.password))
        try:
            await session.execute(statements.format(**names))
        finally:
            await session.close()

    async def state(self, others: set[str]) -> State:
        """What there is in the end. The Secret opens the one login there is, if there is one."""
        databases = [self.database.name, *await self._shards()]
        # The names of shards first, which contain that of the database.
        names = {database: f"database {n}" for n, database in reversed(list(enumerate(databases)))}
        for name in databases:
            names |= await self._in(name, channel_tokens)
        found: State = {}
        for name in databases:
            state = await self._in(name, lambda session: end_state(session, names=names, others=others))
            parts = {part: list(map(str, rows)) for part, rows in (await self._in(name, structure)).items()}
            found |= {f"{names[name]}: {part}": rows for part, rows in (state | parts).items()}
        if self.secret is not None and found["database 0: logins"]:
            await (await self.log_in()).close()
        return found

    async def _in(self, database: str, look: Callable[[asyncpg.Connection], Awaitable[Found]]) -> Found:
        """What a superuser sees."""
        session = await self.database.server.connect(database)
        try:
            return await look(session)
        finally:
            await session.close()

    async def _shards(self) -> list[str]:
        query = "select datname from pg_database where starts_with(datname, $1) order by 1"
        rows = await self._in("postgres", lambda session: session.fetch(query, f"{self.database.name}_bus_"))
        return [row[0] for row in rows]


Act = Callable[[Stage], Awaitable[None]]
Look = Callable[[Stage], Awaitable[bool]]


@dataclass(frozen=True)
class Scenario:
    """Something that an operator does.

    Attributes:
        name: What.
        look: One reconciliation, which a new operator would begin with; whether nothing is left to do.
        before: Makes what was there, and says what is wanted now.
        template: The database that it begins with.
    """

    name: str
    look: Look
    before: Act | None = None
    template: str = "bus_template"


async def look_at_channel(stage: Stage) -> bool:
    return await stage.provision()


def provisioned(change: Act | None = None, *, messages: bool = True) -> Act:
    """A channel, and what then becomes of it."""

    async def before(stage: Stage) -> None:
        while not await stage.provision():
            pass
        if messages:
            await stage.publish()
        if change is not None:
            await change(stage)

    return before


def wanting(**spec: Any) -> Act:
    async def change(stage: Stage) -> None:
        stage.spec |= spec

    return change


async def from_unlogged(stage: Stage) -> None:
    stage.spec["durability"] = "Unlogged"
    await provisioned(wanting(durability="Sync"))(stage)


def ruled(**rules: Any) -> Act:
    async def change(stage: Stage) -> None:
        stage.rules = replace(stage.rules, **rules)

    return change


def tampered(statements: str) -> Act:
    async def change(stage: Stage) -> None:
        await stage.run(statements)

    return change


async def lose_secret(stage: Stage) -> None:
    stage.secret = None


async def edit_secret(stage: Stage) -> None:
    stage.secret = HeldCredential(stage.secret_pair()[0], "edited")


async def come_back(stage: Stage) -> None:
    """Deleted with Retain, and made anew."""
    async with connect(stage.admin) as session:
        await provision.deprovision(session, "orders", Uid(stage.uid), "Retain")
    stage.uid, stage.secret = "another-uid", None


def deleted(policy: str) -> Look:
    async def look(stage: Stage) -> bool:
        async with connect(stage.admin) as session:
            return await provision.deprovision(session, "orders", Uid(stage.uid), policy) is None

    return look


async def withdraw(stage: Stage) -> bool:
    async with connect(stage.admin) as session:
        return not await provision.withdraw(session, "orders", Uid(stage.uid))


async def keep_database(stage: Stage) -> bool:
    async with connect(stage.admin) as session:
        _, done, drift = await provision.keep(session)
        return not done and drift.repaired == () and drift.remaining == ()


async def spread(stage: Stage) -> bool:
    """Two shards, and a channel that belongs in the second."""
    async with connect(stage.admin) as session:
        report = await shards.install(session, stage.admin, 2)
    if report.failure is not None:
        raise report.failure
    async with AsyncExitStack() as stack:
        shard, session, _ = await stack.enter_async_context(shards.placed(report.shards, "audit"))
        spec = ChannelSpec.model_validate({"channel": "audit"})
        desired = DesiredChannel.from_spec(spec, namespace="team", name="audit", uid=Uid("uid-audit"))
        done = await provision.provision(session, desired, None, binding_wanted=False)
        assert shard.index == 1
    return not report.done and not done.actions


DAMAGED_FUNCTIONS = """
drop function pgmq_bus_channel.publish_{token};
grant execute on function pgmq_bus.trim to public;
alter function public.bus_archive security invoker;
drop function pgmq_bus_v1.roster;
"""
DAMAGED_ROLES = """
revoke pgmq_bus_client from {role};
alter role {login} set statement_timeout = 0;
alter role {login} createdb;
grant select on pgmq_bus.peer to {login};
grant usage on schema pgmq_bus to public;
"""

SCENARIOS = [
    Scenario("a channel is created", look_at_channel),
    Scenario(
        "durability, limits and retention change",
        look_at_channel,
        provisioned(
            wanting(durability="Unlogged", limits={"maxPeers": 7, "maxConnections": 9}, retention={"maxMessages": 50})
        ),
    ),
    Scenario("Unlogged becomes Sync", look_at_channel, from_unlogged),
    Scenario("credentials are rotated", look_at_channel, provisioned(ruled(request="now"))),
    Scenario("the overlap is over", look_at_channel, provisioned(ruled(request="now", overlap=timedelta(0)))),
    Scenario("the Secret is lost", look_at_channel, provisioned(lose_secret)),
    Scenario("the Secret is edited", look_at_channel, provisioned(edit_secret)),
    Scenario("a login is dropped by hand", look_at_channel, provisioned(tampered("drop role {login}"))),
    Scenario(
        "a log is dropped by hand",
        look_at_channel,
        provisioned(tampered("drop table pgmq.q_bus_{token}"), messages=False),
    ),
    Scenario("a channel is made anew after Retain", look_at_channel, provisioned(come_back)),
    Scenario("functions are damaged", keep_database, provisioned(tampered(DAMAGED_FUNCTIONS))),
    Scenario("roles and privileges are damaged", keep_database, provisioned(tampered(DAMAGED_ROLES))),
    Scenario("deleted with Retain", deleted("Retain"), provisioned()),
    Scenario("deleted with Delete", deleted("Delete"), provisioned()),
    Scenario("deleted with DeleteIfEmpty, empty", deleted("DeleteIfEmpty"), provisioned(messages=False)),
    Scenario("deleted with DeleteIfEmpty, not empty", deleted("DeleteIfEmpty"), provisioned()),
    Scenario("access is withdrawn", withdraw, provisioned()),
    Scenario("a second shard", spread, provisioned()),
    *(
        Scenario(f"the schema is migrated from version {version}", keep_database, template=f"bus_version_{version}")
        for version in former.VERSIONS
    ),
]

INSTALLATION = Scenario("a database is installed", keep_database, template="template0")
