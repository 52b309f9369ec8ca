"""What somebody changes by hand under a running operator: an Event says what it was, and it is as before."""

import postgres
import pytest
from control_plane import wait_until
from operator_world import Namespace, Ref, World


@pytest.fixture
async def created(world: World, namespace: Namespace) -> postgres.Database:
    database = await world.postgres()
    namespace.database(database.dsn)
    return database


@pytest.fixture
def channel(namespace: Namespace, created: postgres.Database) -> Ref:
    made = namespace.channel()
    made.wait_ready()
    return made


def warnings(ref: Ref, reason: str) -> list[str]:
    return [message for kind, why, message in ref.events() if (kind, why) == ("Warning", reason)]


def database_of(world: World, namespace: Namespace) -> Ref:
    return Ref(world.kube, "busdatabases", namespace.name, "main")


async def test_a_channels_drift_is_told_on_the_channel(
    namespace: Namespace, created: postgres.Database, channel: Ref
) -> None:
    login = (namespace.secret("orders-bus") or {})["username"]
    role = login.replace("login", "channel").rsplit("_", 1)[0]
    log = role.replace("bus_channel_", "pgmq.q_bus_")
    async with created.session() as session:
        await session.execute(f"grant select on {log} to {login}; alter role {role} createdb")

    def told() -> bool:
        text = "\n".join(warnings(channel, "DriftRepaired"))
        return f"role {role}: has CREATEDB" in text and f"table {log}: SELECT granted to {login}" in text

    wait_until(told, "the Events")
    async with created.session() as session:
        assert not await session.fetchval("select has_table_privilege($1, $2, 'SELECT')", login, log)
        assert not await session.fetchval("select rolcreatedb from pg_roles where rolname = $1", role)
    assert channel.status["credentialGeneration"] == 1


async def test_another_databases_channel_of_that_name_is_told_nothing(
    world: World, namespace: Namespace, created: postgres.Database, channel: Ref
) -> None:
    """Or whoever administers one database could have advice posted on the channels in another."""
    elsewhere = world.namespace()
    elsewhere.database((await world.postgres()).dsn, default=True)
    other = elsewhere.channel(database=None, channel=f"{namespace.name}.orders")
    other.wait_ready()
    role = (namespace.secret("orders-bus") or {})["username"].replace("login", "channel").rsplit("_", 1)[0]
    async with created.session() as session:
        await session.execute(f"alter role {role} createdb")
    expected = f"role {role}: has CREATEDB"
    wait_until(lambda: expected in "\n".join(warnings(channel, "DriftRepaired")), "the Event")
    assert warnings(other, "DriftRepaired") == []


async def test_what_is_shared_is_told_on_the_database(
    world: World, namespace: Namespace, created: postgres.Database, channel: Ref
) -> None:
    async with created.session() as session:
        await session.execute("grant select on pgmq_bus.peer to public")
    database = database_of(world, namespace)
    expected = "changed by hand, and put right: table pgmq_bus.peer: SELECT granted to PUBLIC"
    wait_until(lambda: expected in warnings(database, "DriftRepaired"), "the Event")
    assert warnings(channel, "DriftRepaired") == []


async def test_what_is_somebody_elses_is_a_condition_until_he_removes_it(
    world: World, namespace: Namespace, created: postgres.Database, channel: Ref
) -> None:
    database = database_of(world, namespace)
    async with created.session() as session:
        await session.execute("create function public.bus_join(varchar) returns text language sql as 'select ''x'''")
    message = database.wait_for("DriftRemains")["message"]
    assert "public.bus_join(character varying): can be called in place of a function of the bus" in message
    assert "(run: drop routine public.bus_join(character varying))" in message
    # Its channels go on.
    another = namespace.channel("another")
    another.wait_ready()
    async with created.session() as session:
        await session.execute("drop routine public.bus_join(character varying)")
    database.wait_ready()
    assert len(warnings(database, "DriftRemains")) == 1


async def test_a_dropped_login(namespace: Namespace, created: postgres.Database, channel: Ref) -> None:
    login = (namespace.secret("orders-bus") or {})["username"]
    async with created.session() as session:
        await session.execute(f"drop owned by {login}; drop role {login}")
    wait_until(lambda: channel.status["credentialGeneration"] == 2, "a new credential")
    wait_until(lambda: f"role {login}: is missing" in "\n".join(warnings(channel, "DriftRepaired")), "the Event")


async def test_a_lost_channel(namespace: Namespace, created: postgres.Database, channel: Ref) -> None:
    async with created.session() as session:
        await session.execute("delete from pgmq_bus.channel")
    wait_until(lambda: "its row was gone" in "".join(warnings(channel, "DriftRepaired")), "the Event")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("password", "entry password of Secret orders-bus was changed by hand"),
        ("username", "entry username of Secret orders-bus was changed by hand"),
        ("channel", "entry channel of Secret orders-bus was changed by hand"),
        (None, "Secret orders-bus was deleted by hand"),
    ],
)
async def test_the_secret(namespace: Namespace, channel: Ref, damage: str | None, words: str) -> None:
    if damage is None:
        namespace.delete_secret("orders-bus")
    else:
        namespace.put_secret("orders-bus", {damage: "edited"})
    wait_until(lambda: words in "\n".join(warnings(channel, "DriftRepaired")), "the Event")
