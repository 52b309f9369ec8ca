"""Every attempt of the table is made, gets what it says, and leaves the victim as it was."""
# ruff: noqa: E501  a long query

from collections.abc import AsyncIterator

import asyncpg
import attempts_page
import pytest
from attempts import ALLOWED, SUBJECTS
from intruders import SECRET_NAME, Scene
from wire import payloads

from bus_operator import render


@pytest.fixture
async def superuser(scene: Scene) -> AsyncIterator[asyncpg.Connection]:
    session = await scene.server.connect(scene.victim_channel.endpoint.database)
    yield session
    session.terminate()


async def snapshot(superuser: asyncpg.Connection, token: str) -> str:
    """All of the victim's state, and what the functions and roles are."""
    return await superuser.fetchval(
        "select jsonb_build_array("
        " (select jsonb_agg(c) from pgmq_bus.channel as c where c.name = $1),"
        " (select jsonb_agg(s) from pgmq_bus.channel_state as s join pgmq_bus.channel as c on c.id = s.channel_id where c.name = $1),"
        " (select jsonb_agg(to_jsonb(p) - 'last_seen' order by p.queue) from pgmq_bus.peer as p"
        "   join pgmq_bus.channel as c on c.id = p.channel_id where c.name = $1),"
        f" (select jsonb_agg(l) from pgmq.q_bus_{token} as l), (select last_value from pgmq.q_bus_{token}_msg_id_seq),"
        " (select jsonb_agg(f order by f.oid) from pg_proc as f where f.oid >= 16384 and not starts_with(f.pronamespace::regnamespace::text, 'pg_')),"
        " (select jsonb_agg(r order by r.rolname) from pg_authid as r where r.rolname ~ $2),"
        " (select jsonb_agg(m order by m.roleid, m.member) from pg_auth_members as m where m.roleid::regrole::text ~ $2)"
        ")::text",
        SECRET_NAME,
        f"^pgmq_bus_|{token}",
    )  # fmt: skip


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_what_strangers_try(scene: Scene, superuser, databases, intruder, subject: str):
    own, elsewhere = databases[3], databases[4]
    login = own if intruder is scene.stranger else elsewhere
    victim = scene.victim_channel
    names = {
        "login": login.username,
        "token": scene.own.joined["token"],
        "queue": scene.own.queue,
        "victim": scene.victim.joined["token"],
        "victim_name": SECRET_NAME,
        "victim_queue": scene.victim.queue,
        "victim_login": victim.username,
        "victim_role": victim.username.rsplit("_g", 1)[0].replace("login", "channel"),
        "victim_pid": scene.victim.session.get_server_pid(),
        "message": scene.victim.after,
        "database": victim.endpoint.database,
    }
    before = await snapshot(superuser, names["victim"])
    outcomes, expected = {}, {}
    session = await asyncpg.connect(victim.endpoint.uri(login.username, login.password))
    for attempt in SUBJECTS[subject]:
        statement = attempt.statement.format(**names)
        expected[statement] = attempt.gets
        outcomes[statement] = await try_it(session, statement)
        if session.is_in_transaction():
            await session.execute("rollback")
        await session.execute("discard all")
    session.terminate()
    # What a login may do to itself is taken back, as the operator does.
    await superuser.execute(
        f"alter role {login.username} reset all; alter role {login.username} password '{login.password}'"
    )
    for setting in render.login_settings(login.username):
        await superuser.execute(setting)
    assert outcomes == expected
    assert await snapshot(superuser, names["victim"]) == before
    # And the victim goes on.
    ids = await scene.victim.publish("after")
    assert payloads(await scene.victim.read())[-1:] == ["after"]
    assert ids


async def try_it(session: asyncpg.Connection, statement: str) -> str:
    """Its SQLSTATE, or ALLOWED."""
    try:
        if statement.startswith("copy ") and statement.endswith(" to stdout"):
            await session.copy_from_query(f"select * from {statement.split()[1]}", output=lambda _: None)
        else:
            await session.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    return ALLOWED


def test_the_page_shows_todays_attempts():
    page = attempts_page.PAGE.read_text()
    assert attempts_page.updated(page) == page, "run: python tests/isolation/attempts_page.py"
