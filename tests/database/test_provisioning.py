"""Channels and credentials in a real server: created, changed, drifted, rotated, retained, deleted."""

import asyncio
import base64
import json
import re
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import postgres
import pytest
from wire import Peer, Row, payloads

from bus_operator import actions, apply, catalog, plan, provision, sql
from bus_operator.actions import DesiredChannel
from bus_operator.errors import ChannelConflictError, TransientError
from bus_operator.model import ChannelSpec, Uid
from bus_operator.plan_credentials import HeldCredential, RotationRules

AT_ONCE = RotationRules(overlap=timedelta(0))
"""The login before the one before ends with the next plan."""


def desire(name: str, uid: str = "uid-1", reference: str = "team/orders", **spec: Any) -> DesiredChannel:
    namespace, resource = reference.split("/")
    parsed = ChannelSpec.model_validate({"channel": name, **spec})
    return DesiredChannel.from_spec(parsed, namespace=namespace, name=resource, uid=Uid(uid))


def held(provisioned: provision.ProvisionedChannel) -> HeldCredential:
    assert provisioned.issued is not None
    return HeldCredential(provisioned.issued.username, provisioned.issued.password)


class Operator:
    """An administrator's session, with what the tests ask of it."""

    def __init__(self, database: postgres.Database, session: asyncpg.Connection) -> None:
        self.database = database
        self.session = session

    async def provision(self, desired: DesiredChannel, credential: HeldCredential | None = None):
        rotation = AT_ONCE if credential is None else None
        return await provision.provision(self.session, desired, credential, rotation=rotation)

    async def login(self, credential: HeldCredential, database: str | None = None) -> asyncpg.Connection:
        endpoint = replace(self.database.admin.endpoint, database=database or self.database.name)
        return await asyncpg.connect(endpoint.uri(credential.username, credential.password))

    async def logins(self) -> list[str]:
        query = "select rolname from pg_roles where rolname like $1 order by 1"
        role = await self.session.fetchval("select max(role) from pgmq_bus.channel")
        pattern = role.replace("bus_channel_", "bus_login_").replace("_", r"\_") + "%"
        return [row[0] for row in await self.session.fetch(query, pattern)]


@pytest.fixture
async def operator(shared: postgres.Database):
    async with shared.session() as session:
        # Each test counts its own: what earlier ones left is forgotten first. Roles and logs stay behind.
        await session.execute("delete from pgmq_bus.channel; delete from pgmq.meta")
        names = "select oid::regprocedure::text from pg_proc where pronamespace = 'pgmq_bus_channel'::regnamespace"
        for (function,) in await session.fetch(names):
            await session.execute(f"drop routine {function}")
        yield Operator(shared, session)


async def test_provisioning_twice_changes_nothing(operator: Operator):
    first = await operator.provision(desire("orders"))
    assert [type(action) for action in first.actions] == [actions.CreateChannel, actions.IssueCredential]
    rows = "select c.*, c.xmin::text, l.*, l.xmin::text, r.* from pgmq_bus.channel c, pgmq_bus.login l, pg_roles r"
    before = await operator.session.fetch(rows)
    again = await operator.provision(desire("orders"), held(first))
    assert again.actions == ()
    assert (again.issued, again.generation) == (None, 1)
    assert await operator.session.fetch(rows) == before
    await (await operator.login(held(first))).close()


async def test_a_name_belongs_to_one_buschannel(operator: Operator):
    first = await operator.provision(desire("orders"))
    with pytest.raises(ChannelConflictError, match="belongs to BusChannel team/orders"):
        await operator.provision(desire("orders", uid="uid-2", reference="other/orders"))
    assert (await operator.provision(desire("orders"), held(first))).actions == ()


async def test_who_has_the_older_claim_gets_the_name_and_no_messages(operator: Operator):
    """It may be another namespace's, which was not allowed to use the database when the channel was made."""
    younger = await operator.provision(desire("orders", uid="uid-2", reference="other/orders"))
    victim = await Peer.join(await operator.login(held(younger)), "orders", peer="worker")
    await victim.publish("offer")
    elder = await provision.provision(operator.session, desire("orders"), None, frozenset({Uid("uid-2")}))
    assert elder.generation == 1
    peer = await Peer.join(await operator.login(held(elder)), "orders", peer="worker")
    assert not peer.joined["resumed"]
    assert await peer.read(after=0) == []
    await peer.publish("mine")
    assert payloads(await peer.read(after=0)) == ["mine"]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await operator.login(held(younger))
    rows = await operator.session.fetch("select name, owner_uid, owner_reference from pgmq_bus.channel order by id")
    names = [tuple(row) for row in rows]
    assert names[1] == ("orders", "uid-1", "team/orders")
    assert names[0][0].startswith("orders~")
    assert names[0][1:] == (None, "other/orders")
    for session in (victim.session, peer.session):
        session.terminate()


async def test_a_losing_duplicate_deprovisions_nothing(operator: Operator):
    first = await operator.provision(desire("orders"))
    for policy in ("Delete", "DeleteIfEmpty", "Retain"):
        assert await provision.deprovision(operator.session, "orders", Uid("uid-2"), policy) is None
    assert await provision.deprovision(operator.session, "never-made", Uid("uid-2"), "Delete") is None
    assert (await operator.provision(desire("orders"), held(first))).actions == ()


async def test_what_was_retained_is_found_again(operator: Operator):
    first = await operator.provision(desire("orders"))
    session = await operator.login(held(first))
    peer = await Peer.join(session, "orders", peer="worker")
    await peer.publish("kept")
    done = await provision.deprovision(operator.session, "orders", Uid("uid-1"), "Retain")
    assert isinstance(done, actions.ReleaseChannel)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await operator.login(held(first))
    with pytest.raises(ChannelConflictError, match="retained for BusChannel team/orders"):
        await operator.provision(desire("orders", uid="uid-3", reference="thief/orders"))

    second = await operator.provision(desire("orders", uid="uid-2"))
    session = await operator.login(held(second))
    back = await Peer.join(session, "orders", peer="worker")
    assert payloads(await back.read()) == ["kept"]
    session.terminate()


async def test_settings_are_updated_in_place(operator: Operator):
    first = await operator.provision(desire("orders"))
    session = await operator.login(held(first))
    peer = await Peer.join(session, "orders")
    changed = desire(
        "orders", durability="Async", selfDelivery=False, peerTimeout="1h",
        limits={"maxPeers": 1, "maxMessageBytes": 1024, "maxConnections": 3},
    )  # fmt: skip
    second = await operator.provision(changed, held(first))
    assert {type(action) for action in second.actions} == {actions.UpdateChannel, actions.UpdateLogin}
    assert second.issued is None
    assert (await operator.provision(changed, held(first))).actions == ()
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await peer.publish("x" * 1100)
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await Peer.join(session, "orders")
    limit = await operator.session.fetchval(
        "select rolconnlimit from pg_roles where rolname = $1", held(first).username
    )
    assert limit == 3 + 1  # the operator's own
    session.terminate()


@pytest.mark.parametrize(
    "drift",
    [
        "alter role {login} password 'changed-by-hand'",
        "alter role {login} nologin",
        "alter role {login} createrole",
        "alter role {login} superuser",
        "alter role {login} noinherit",
        "alter role {login} valid until '2001-01-01'",
        "revoke {channel} from {login}",
        "drop owned by {login}; drop role {login}",
        "drop owned by {channel}; drop role {channel}",
    ],
)
async def test_a_login_that_drifted_is_replaced(operator: Operator, drift):
    first = await operator.provision(desire("orders"))
    role = await operator.session.fetchval("select role from pgmq_bus.channel")
    # How noinherit counts for a membership that exists already changed in 16; set anew it counts in both.
    regrant = "revoke {channel} from {login}; grant {channel} to {login};" if "noinherit" in drift else ""
    await operator.session.execute(f"{drift}; {regrant}".format(login=held(first).username, channel=role))
    second = await operator.provision(desire("orders"), held(first))
    assert second.generation == 2
    session = await operator.login(held(second))
    assert await Peer.join(session, "orders")
    session.terminate()
    # A dropped role is forgotten at once; what still exists gets its overlap.
    after = await operator.provision(desire("orders"), held(second))
    assert after.actions == ((actions.DropLogin(held(first).username, 1),) if "drop role {login}" in drift else ())
    assert (await operator.provision(desire("orders"), held(second))).actions == ()


async def test_a_channel_role_that_lost_its_group_gets_it_back(operator: Operator):
    first = await operator.provision(desire("orders"))
    role = await operator.session.fetchval("select role from pgmq_bus.channel")
    await operator.session.execute(f"revoke pgmq_bus_client from {role}")
    second = await operator.provision(desire("orders"), held(first))
    assert second.actions == (actions.RepairRole(role, create=False),)
    session = await operator.login(held(first))
    assert await Peer.join(session, "orders")
    session.terminate()


@pytest.mark.parametrize("wrong", ["password", "username", "nothing"])
async def test_a_binding_that_was_changed_gets_a_new_credential(operator: Operator, wrong):
    first = await operator.provision(desire("orders"))
    credential = {
        "password": HeldCredential(held(first).username, "guess"),
        "username": HeldCredential("postgres", held(first).password),
        "nothing": None,
    }[wrong]
    second = await operator.provision(desire("orders"), credential)
    assert second.generation == 2
    await (await operator.login(held(second))).close()


async def test_two_generations_overlap_and_the_third_ends_the_first(operator: Operator):
    credentials = [held(await operator.provision(desire("orders"))) for _ in range(2)]
    first, second = [await operator.login(credential) for credential in credentials]
    one, two = await Peer.join(first, "orders"), await Peer.join(second, "orders")
    await one.publish("from the first")
    assert payloads(await two.read()) == ["from the first"]

    third = await operator.provision(desire("orders"))
    assert third.generation == 3
    assert len(await operator.logins()) == 2
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)):
        await one.publish("x")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await operator.login(credentials[0])
    assert await two.publish("goes on")
    second.terminate()


class TestWhatWakesPeers:
    """The doorbell key and the name to LISTEN to."""

    SECRETS = "select doorbell_key, wake, roster from pgmq_bus.channel where name = $1"

    async def test_every_channel_has_its_own(self, operator: Operator):
        for name in ("orders", "audit"):
            await operator.provision(desire(name, uid=name))
        rows = [await operator.session.fetchrow(self.SECRETS, name) for name in ("orders", "audit")]
        assert rows[0]["doorbell_key"] != rows[1]["doorbell_key"]
        assert rows[0]["wake"] != rows[1]["wake"]
        for row in rows:
            assert len(row["doorbell_key"]) == 32
            assert re.fullmatch("bus_[0-9a-f]{32}", row["wake"])

    async def test_they_change_when_a_login_ends(self, operator: Operator):
        first = await operator.provision(desire("orders"))
        before = await operator.session.fetchrow(self.SECRETS, "orders")
        for unchanged in (desire("orders"), desire("orders", durability="Async", limits={"maxConnections": 3})):
            await operator.provision(unchanged, held(first))
            assert await operator.session.fetchrow(self.SECRETS, "orders") == before
        assert (await operator.provision(desire("orders"))).issued
        assert await operator.session.fetchrow(self.SECRETS, "orders") == before, "nobody lost anything yet"
        # From the third credential on, each ends the login of the one before the last.
        for _ in range(2):
            assert (await operator.provision(desire("orders"))).issued
            after = await operator.session.fetchrow(self.SECRETS, "orders")
            assert after["doorbell_key"] != before["doorbell_key"]
            assert after["wake"] != before["wake"]
            assert after["roster"] == before["roster"] + 1
            before = after

    async def test_who_comes_back_to_what_was_retained_finds_others(self, operator: Operator):
        await operator.provision(desire("orders"))
        before = await operator.session.fetchrow(self.SECRETS, "orders")
        await provision.deprovision(operator.session, "orders", Uid("uid-1"), "Retain")
        await operator.provision(desire("orders", uid="uid-2"))
        after = await operator.session.fetchrow(self.SECRETS, "orders")
        assert after["doorbell_key"] != before["doorbell_key"]
        assert after["wake"] != before["wake"]

    async def test_peers_are_told(self, operator: Operator):
        await operator.provision(desire("orders"))
        session = await operator.login(held(await operator.provision(desire("orders"))))
        peer = await Peer.join(session, "orders")
        await peer.read()
        before = peer.roster
        await operator.provision(desire("orders"))
        await peer.read()
        assert peer.roster > before
        told = json.loads(await session.fetchval("select pgmq_bus_v1.roster('orders', $1)", peer.queue))
        key, wake, _ = await operator.session.fetchrow(self.SECRETS, "orders")
        assert (base64.b64decode(told["key"]), told["wake"], told["version"]) == (key, wake, peer.roster)
        session.terminate()

    async def test_the_operator_writes_them_into_no_log(self, operator: Operator):
        seen = []
        for _ in range(2):
            await operator.provision(desire("orders"))
            seen.append(await operator.session.fetchrow(self.SECRETS, "orders"))
        marker = secrets.token_hex(8)
        await operator.session.execute(f"select '{marker}'")
        async with asyncio.timeout(5):
            while marker not in operator.database.server.log:
                await asyncio.sleep(0.02)
        for key, wake, _ in seen:
            assert key.hex() not in operator.database.server.log
            assert wake not in operator.database.server.log


@pytest.mark.parametrize(
    ("policy", "empty", "dropped"),
    [
        ("Delete", True, True), ("Delete", False, True),
        ("DeleteIfEmpty", True, True), ("DeleteIfEmpty", False, False),
        ("Retain", True, False), ("Retain", False, False),
    ],
)  # fmt: skip
async def test_deletion_policies(operator: Operator, policy, empty, dropped):
    first = await operator.provision(desire("orders"))
    session = await operator.login(held(first))
    peer = await Peer.join(session, "orders")
    ids = await peer.publish("message")
    if empty:
        await peer.read()
        await peer.read(acknowledge=ids[0], limit=0)
        await peer.leave()
    queue = await operator.session.fetchval("select queue from pgmq_bus.channel")
    done = await provision.deprovision(operator.session, "orders", Uid("uid-1"), policy)
    assert isinstance(done, actions.DropChannel if dropped else actions.ReleaseChannel)
    assert await operator.session.fetchval("select count(*) from pgmq_bus.channel") == (0 if dropped else 1)
    assert await operator.session.fetchval("select count(*) from pgmq.meta where queue_name = $1", queue) == (
        0 if dropped else 1
    )
    log = await operator.session.fetchval("select to_regclass($1) is null", f"pgmq.q_{queue}")
    assert log is dropped
    roles = await operator.session.fetchval(
        "select count(*) from pg_roles where rolname like '%' || $1 || '%'", queue.removeprefix("bus_")
    )
    assert roles == (0 if dropped else 1)
    assert await provision.deprovision(operator.session, "orders", Uid("uid-1"), policy) is None


@pytest.mark.parametrize("policy", ["Delete", "DeleteIfEmpty", "Retain"])
async def test_a_channel_whose_log_is_gone_can_be_deleted(operator: Operator, policy):
    await operator.provision(desire("orders"))
    queue = await operator.session.fetchval("select queue from pgmq_bus.channel")
    await operator.session.execute(f"drop table pgmq.q_{queue}")
    assert await provision.deprovision(operator.session, "orders", Uid("uid-1"), policy)
    remains = await operator.session.fetchval("select count(*) from pgmq_bus.channel")
    assert remains == (0 if policy == "Delete" else 1)


async def test_a_log_that_was_dropped_is_made_anew_and_no_peer_goes_deaf(operator: Operator):
    first = await operator.provision(desire("orders"))
    session = await operator.login(held(first))
    fast, slow = await Peer.join(session, "orders"), await Peer.join(session, "orders")
    ids = await fast.publish(*range(5))
    await fast.read()
    await fast.read(acknowledge=ids[-1], limit=0)
    queue = await operator.session.fetchval("select queue from pgmq_bus.channel")
    await operator.session.execute(f"drop table pgmq.q_{queue}")
    second = await operator.provision(desire("orders"), held(first))
    assert second.actions == (actions.RecreateLog(queue, unlogged=False),)
    after = await fast.publish("new")
    assert after[0] > ids[-1]
    assert payloads(await fast.read(after=ids[-1])) == ["new"]
    assert await slow.read() == [Row(ids[-1], None, 5), Row(after[0], "new")]
    session.terminate()


@pytest.mark.parametrize("owner", ["uid-1", "uid-2"])
async def test_two_reconcilers_at_once_make_one_channel(operator: Operator, owner):
    desired = [desire("orders"), desire("orders", uid=owner, reference="team/orders" if owner == "uid-1" else "b/b")]

    async def reconcile(wanted: DesiredChannel):
        async with operator.database.session() as session:
            return await provision.provision(session, wanted, None)

    results = await asyncio.gather(*(reconcile(wanted) for wanted in desired), return_exceptions=True)
    winners = [result for result in results if isinstance(result, provision.ProvisionedChannel)]
    losers = [result for result in results if isinstance(result, BaseException)]
    for error in losers:
        assert isinstance(error, TransientError | ChannelConflictError), repr(error)
    assert winners
    assert await operator.session.fetchval("select count(*) from pgmq_bus.channel") == 1
    assert await operator.session.fetchval("select count(*) from pgmq.meta") == 1


async def test_a_plan_that_somebody_overtook_changes_nothing(operator: Operator):
    """Two reconcilers saw the same; the second one's plan is refused as a whole."""
    first = await operator.provision(desire("orders"))
    observed = await catalog.observe_channel(operator.session, "orders")
    digest = sql.channel_functions_digest()
    stale = plan.plan_channel(desire("orders"), observed, None, functions_digest=digest, rotation=AT_ONCE)
    await operator.provision(desire("orders"))
    with pytest.raises(TransientError, match="another reconciler"):
        await apply.apply_channel(operator.session, observed, stale)

    await provision.deprovision(operator.session, "orders", Uid("uid-1"), "Retain")
    observed = await catalog.observe_channel(operator.session, "orders")
    stale = plan.plan_channel(
        desire("orders", uid="uid-2"), observed, None, functions_digest=digest, rotation=AT_ONCE, binding_wanted=False
    )
    await operator.provision(desire("orders", uid="uid-3"))
    with pytest.raises(TransientError, match="another reconciler"):
        await apply.apply_channel(operator.session, observed, stale)
    assert await operator.session.fetchval("select owner_uid from pgmq_bus.channel") == "uid-3"
    assert first


class TestDroppingALogin:
    """Whatever a client does, its credential can be taken away."""

    @pytest.mark.parametrize(
        ("elsewhere", "mischief"),
        [
            (False, "create temp table t (a int); insert into t values (1); begin; select * from t"),
            (False, "select lo_create(0); alter default privileges grant select on tables to public"),
            (
                False,
                "set role {channel}; select lo_create(0); alter default privileges revoke all on types from public",
            ),
            (False, "set role pgmq_bus_client; create temp table t (a int)"),
            (False, "begin; alter role current_user set work_mem = '1MB'"),
            (False, "begin; select public.bus_join('orders')"),
            (True, "create temp table t (a int); begin; select * from t"),
            (True, "select lo_create(0)"),
            (True, "set role {channel}; select lo_create(0)"),
        ],
    )
    async def test_what_a_client_does_blocks_nothing(self, operator: Operator, elsewhere, mischief):
        first = await operator.provision(desire("orders"))
        role = await operator.session.fetchval("select role from pgmq_bus.channel")
        session = await operator.login(held(first), "postgres" if elsewhere else None)
        await session.execute(mischief.format(channel=role))
        async with asyncio.timeout(20):
            await operator.provision(desire("orders"))
            third = await operator.provision(desire("orders"))
            assert third.generation == 3
            with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
                await operator.login(held(first))
            again = await operator.login(held(third))
            assert await Peer.join(again, "orders")
            again.terminate()
            assert await provision.deprovision(operator.session, "orders", Uid("uid-1"), "Retain")
            # The name of a login that could not be dropped is not used again.
            fourth = await operator.provision(desire("orders"))
            again = await operator.login(held(fourth))
            assert await Peer.join(again, "orders")
            again.terminate()
            assert await provision.deprovision(operator.session, "orders", Uid("uid-1"), "Delete")
        members = "select count(*) from pg_auth_members where roleid = to_regrole($1)"
        assert await operator.session.fetchval(members, role) == 0
        assert await operator.session.fetchval("select count(*) from pgmq_bus.channel") == 0
        session.terminate()


async def test_the_clear_password_is_nowhere_on_the_server(operator: Operator):
    sessions = []
    first = await operator.provision(desire("orders"))
    sessions.append(await operator.login(held(first)))
    second = await operator.provision(desire("orders"))
    sessions.append(await operator.login(held(second)))
    await operator.provision(desire("orders", limits={"maxConnections": 5}), held(second))
    marker = secrets.token_hex(8)
    await operator.session.execute(f"select '{marker}'")
    async with asyncio.timeout(5):
        while marker not in operator.database.server.log:
            await asyncio.sleep(0.02)
    log = operator.database.server.log
    assert held(second).username in log
    for credential in (held(first), held(second)):
        assert credential.password not in log
        assert credential.password not in repr(first) + repr(second) + repr(credential)
        activity = await operator.session.fetch("select * from pg_stat_activity")
        assert not any(credential.password in str(tuple(row)) for row in activity)
        held_in_catalog = "select count(*) from pg_authid where strpos(rolpassword, $1) > 0"
        assert await operator.session.fetchval(held_in_catalog, credential.password) == 0
    for session in sessions:
        session.terminate()


async def test_how_a_channel_is_used_is_counted(operator: Operator):
    first = await operator.provision(desire("orders"))
    assert first.counts == catalog.ChannelCounts(
        peers=0, doorbell=0, listen=0, poll=0, backlog=0, oldest=None, stored=0
    )
    session = await operator.login(held(first))
    reader = await Peer.join(session, "orders", address="10.0.0.1:40000")
    await Peer.join(session, "orders", address="[fd00::1]:40000", listens=True)
    await Peer.join(session, "orders", listens=True)
    await Peer.bus_join(session, "orders")
    await reader.publish(1, 2)
    log = f"pgmq.q_bus_{reader.joined['token']}"
    await operator.session.execute(f"update {log} set enqueued_at = enqueued_at - interval '1 hour' where msg_id = 1")
    counts = (await operator.provision(desire("orders"), held(first))).counts
    assert (counts.peers, counts.doorbell, counts.listen, counts.poll) == (4, 1, 2, 1)
    assert (counts.backlog, counts.stored) == (2, 2)
    assert counts.oldest is not None
    assert timedelta(hours=1) < counts.oldest < timedelta(hours=1, minutes=1)
    # What everybody acknowledged is no backlog, whether it was trimmed already or not.
    await operator.session.execute("update pgmq_bus.peer set acknowledged = 1")
    counts = (await operator.provision(desire("orders"), held(first))).counts
    assert counts.backlog == 1
    assert counts.oldest < timedelta(minutes=1)
    session.terminate()
