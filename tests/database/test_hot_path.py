"""What publishing and reading cost: which relations they touch, how they scan, and that a plain read writes nothing."""

import dataclasses
import json
import re
from typing import Any

import asyncpg
import postgres
import pytest
from logs import trim_state
from wire import Peer

HUGE = 2**63 - 1
ASSIGNED = "select pg_current_xact_id_if_assigned()::text"
ROW = "select ctid::text, xmin::text, xmax::text from pgmq_bus.peer where queue = $1"


async def relations_in_use(admin: asyncpg.Connection, session: asyncpg.Connection, token: str) -> set[str]:
    """The relations, but for the catalogs', that the session's transaction has locked: all that its plans name."""
    rows = await admin.fetch(
        "select c.relname from pg_locks as l join pg_class as c on c.oid = l.relation"
        " where l.pid = $1 and c.relnamespace <> 'pg_catalog'::regnamespace",
        session.get_server_pid(),
    )
    return {row[0].replace(token, "") for row in rows}


async def warmed_up(make_channel, join, **spec: Any) -> Peer:
    """A peer whose session has made its plans for good, and told so of its last heartbeat."""
    peer = await join(await make_channel(**spec))
    for _ in range(8):
        await peer.publish(1)
        await peer.publish(1, 2)
        rows = await peer.read()
        await peer.read(acknowledge=rows[-1].msg_id)
    return peer


@pytest.mark.parametrize("durability", ["Sync", "Async"])
@pytest.mark.parametrize("messages", [1, 3])
async def test_publishing_touches_few_relations(make_channel, join, admin, durability, messages):
    peer = await warmed_up(make_channel, join, durability=durability)
    async with peer.session.transaction():
        await peer.publish(*range(messages))
        used = await relations_in_use(admin, peer.session, peer.joined["token"])
    log = {"q_bus_", "q_bus__msg_id_seq"}
    assert {name for name in used if not name.endswith(("_pkey", "_idx", "_key"))} == log | {"channel", "peer"}


@pytest.mark.parametrize("self_delivery", [True, False])
async def test_a_plain_read_writes_nothing(make_channel, join, admin, self_delivery):
    peer = await warmed_up(make_channel, join, selfDelivery=self_delivery)
    await peer.publish(1, 2)
    before = await admin.fetchrow(ROW, peer.queue)
    for arguments in ({}, {"after": HUGE}, {"limit": 0}, {"acknowledge": 1}, {"acknowledge": -1}):
        async with peer.session.transaction():
            await peer.read(**arguments)
            assert await peer.session.fetchval(ASSIGNED) is None
            used = await relations_in_use(admin, peer.session, peer.joined["token"])
            assert not used & {"channel_alive", "installation", "q_bus__msg_id_seq"}
    assert await admin.fetchrow(ROW, peer.queue) == before
    async with peer.session.transaction(readonly=True):
        await peer.read()


async def test_a_plain_read_of_a_channel_with_retention_writes_twice_a_second_only(make_channel, join, admin):
    peer = await warmed_up(make_channel, join, retention={"maxMessages": 10, "maxAge": "1h", "maxBytes": 65536})
    await admin.execute("update pgmq_bus.channel_state set trim_after = 'infinity'")
    before = await trim_state(admin, peer.channel)
    await peer.publish(*range(20))
    async with peer.session.transaction():
        await peer.read()
        assert await peer.session.fetchval(ASSIGNED) is None
    assert await trim_state(admin, peer.channel) == before


async def test_one_write_acknowledges_and_keeps_alive(make_channel, join, admin, elapse):
    peer = await warmed_up(make_channel, join)
    ids = await peer.publish(1)
    await elapse(peer, "9 minutes")
    await peer.read(acknowledge=ids[0])
    async with peer.session.transaction():
        await peer.read(acknowledge=ids[0])
        assert await peer.session.fetchval(ASSIGNED) is None


class Explained:
    """A superuser's session, a member of every role, that keeps the plans of what is executed in it."""

    def __init__(self, session: asyncpg.Connection) -> None:
        self.session = session
        self.plans: list[dict[str, Any]] = []

    @classmethod
    async def over(cls, session: asyncpg.Connection) -> "Explained":
        explained = cls(session)
        session.add_log_listener(explained._note)
        await session.execute(
            "load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_analyze = on;"
            " set auto_explain.log_nested_statements = on; set auto_explain.log_format = json;"
            " set auto_explain.log_level = notice; set client_min_messages = notice"
        )
        return explained

    def _note(self, _session: asyncpg.Connection, message: Any) -> None:
        found = re.search(r"plan:\n(\{.*)", message.message, re.DOTALL)
        if found:
            self.plans.append(json.loads(found[1]))

    async def of(self, call: Any) -> list[dict[str, Any]]:
        """The nodes of all plans of a call, those of the statements inside functions included."""
        self.plans.clear()
        await call
        await self.session.fetchval("select 1")
        nodes: list[dict[str, Any]] = []
        for plan in self.plans:
            todo = [plan["Plan"]]
            while todo:
                node = todo.pop()
                nodes.append(node)
                todo += node.get("Plans", [])
        return nodes


def scans(nodes: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(node["Node Type"], node["Relation Name"]) for node in nodes if "Relation Name" in node}


def assert_cheap(nodes: list[dict[str, Any]]) -> None:
    """No scan of a whole table, and nothing that looks so dear that it would be compiled."""
    assert nodes
    for node in nodes:
        assert node["Node Type"] not in ("Seq Scan", "Bitmap Heap Scan"), node
        assert node["Total Cost"] < 100_000, node


async def calls_of_every_kind(peer: Peer, foreign: Peer) -> None:
    """Enough for plans that are kept. Each kind in its turn: one function may make plans in another's settings."""
    for _ in range(8):
        ids = await peer.publish(1)
        ids += await peer.publish(1, 2)
        await peer.read(after=ids[0] - 1, acknowledge=ids[0])
        await peer.read(after=0, limit=10)
        await peer.read(after=HUGE)
    for _ in range(8):
        await peer.notify()
    for _ in range(8):
        await foreign.bus_publish(1)
        await foreign.bus_archive((await foreign.bus_subscribe())[-1].msg_id)


@pytest.mark.parametrize("early", [True, False])
async def test_plans_are_good_for_a_large_channel(database, join, connect, early):
    """Also those that were made, and kept, when everything was small."""
    channel = await database.create_channel()
    member = await join(channel)
    wrapper = await Peer.bus_join(member.session, channel.name)
    admin = await connect(dataclasses.replace(channel, username=postgres.SUPERUSER, password=database.server.password))
    # Where PostgreSQL knows how small tables are it scans them.
    await admin.execute("vacuum analyze")
    explained = await Explained.over(admin)
    peer = Peer(admin, channel.name, member.queue, member.joined)
    foreign = Peer(admin, channel.name, wrapper.queue)
    if early:
        await calls_of_every_kind(peer, foreign)
    token = peer.joined["token"]
    log = f"q_bus_{token}"
    await admin.execute(
        f"insert into pgmq.{log} (vt, message) select now(), to_jsonb(n) from generate_series(1, 100000) as n;"
        " insert into pgmq_bus.peer (queue, channel_id, login, acknowledged, delivered, position)"
        " select 'queue' || n, 1, 'x', 0, 0, 0 from generate_series(1, 5000) as n"
    )
    if not early:
        await calls_of_every_kind(peer, foreign)
    for after, limit in ((0, 100), (50_000, 100), (99_990, 10_000), (HUGE, 100)):
        nodes = await explained.of(peer.read(after=after, limit=limit))
        assert_cheap(nodes)
        reading = [node for node in nodes if node.get("Relation Name") == log]
        assert [(node["Node Type"], node["Index Name"]) for node in reading] == [("Index Scan", f"{log}_pkey")]
        assert reading[0]["Actual Rows"] <= limit
        assert not [node for node in nodes if "Sort" in node["Node Type"]]
    for messages in ([1], [1, 2, 3]):
        nodes = await explained.of(peer.publish(*messages))
        assert scans(nodes) == {("Index Scan", "channel"), ("Index Scan", "peer"), ("ModifyTable", log)}
        assert_cheap(nodes)
    (last,) = await peer.publish(1)
    for call in (
        lambda: peer.read(after=last, acknowledge=last),
        peer.notify,
        lambda: foreign.bus_publish(1),
        foreign.bus_subscribe,
        lambda: foreign.bus_archive(last + 1),
    ):
        await admin.execute("update pgmq_bus.channel_state set trim_after = '-infinity'")
        assert_cheap(await explained.of(call()))
