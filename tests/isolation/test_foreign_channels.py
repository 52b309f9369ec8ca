"""Two channels in one database, and a login of another database on the same server: what each can do to the other.

Every login of a server can read most of its catalogs, so a channel is safe when nothing there names it, nothing of it
may be touched, and each function refuses a stranger in the same words whether the channel exists or not.
"""

import asyncpg
import pytest
from intruders import CALLS, JOINS, OWN_CALLS, SECRET_NAME, Scene, former_queue, refusal
from wire import Peer


async def test_foreign_names_and_queues_are_refused_in_one_voice(scene: Scene, intruder):
    for statement in CALLS:
        await refused_in_one_voice(scene, intruder, statement)


async def refused_in_one_voice(scene: Scene, intruder: asyncpg.Connection, statement: str) -> None:
    unknown = await refusal(intruder, statement, "no-such-channel", "no-such-queue")
    assert unknown["message"] == "bus: access denied"
    assert unknown["sqlstate"] == "42501"
    assert not {"detail", "hint"} & unknown.keys()
    former = await former_queue(scene)
    pairs = [
        (SECRET_NAME, scene.victim.queue),
        (SECRET_NAME, former),
        ("own", former),
        (SECRET_NAME, "no-such-queue"),
        (SECRET_NAME, scene.own.queue),
        ("own", scene.victim.queue),
        ("no-such-channel", scene.victim.queue),
        (None, None),
    ]
    if intruder is scene.foreigner:
        pairs.append(("own", scene.own.queue))
    for channel, queue in pairs:
        assert await refusal(intruder, statement, channel, queue) == unknown, (statement, channel, queue)


@pytest.mark.parametrize("statement", OWN_CALLS)
async def test_a_channels_own_functions_know_its_own_peers_only(scene: Scene, statement):
    """A stranger with the victim's queue name, which is a secret, and its own channel's functions."""
    mine = statement.format(token=scene.own.joined["token"])
    unknown = await refusal(scene.stranger, mine, "no-such-queue")
    assert (unknown["message"], unknown["sqlstate"]) == ("bus: access denied", "42501")
    for queue in (scene.victim.queue, await former_queue(scene), SECRET_NAME, "own", "", None):
        assert await refusal(scene.stranger, mine, queue) == unknown


@pytest.mark.parametrize("statement", OWN_CALLS)
async def test_another_channels_functions_cannot_be_called(scene: Scene, intruder, statement):
    theirs = statement.format(token=scene.victim.joined["token"])
    for queue in (scene.victim.queue, scene.own.queue, "no-such-queue", None):
        error = await refusal(intruder, theirs, queue)
        assert error["sqlstate"] == "42501"
        assert error["message"].startswith("permission denied for function ")


@pytest.mark.parametrize("statement", OWN_CALLS)
async def test_a_privilege_too_many_does_not_make_a_member(scene: Scene, intruder, statement):
    """An administrator's slip: the function checks the session by itself."""
    token = scene.victim.joined["token"]
    admin = await scene.server.connect(scene.victim_channel.endpoint.database)
    functions = f"function pgmq_bus_channel.publish_{token}, pgmq_bus_channel.read_{token}"
    await admin.execute(f"grant execute on {functions} to public; grant usage on schema pgmq_bus_channel to public")
    try:
        for queue in (scene.victim.queue, await former_queue(scene), scene.own.queue, "no-such-queue"):
            error = await refusal(intruder, statement.format(token=token), queue)
            assert (error["message"], error["sqlstate"]) == ("bus: access denied", "42501")
    finally:
        await admin.execute(f"revoke execute on {functions} from public")
        await admin.execute("revoke usage on schema pgmq_bus_channel from public")
        await admin.close()


async def test_a_member_cannot_be_made_a_deputy(scene: Scene, intruder):
    """A function with the victim's rights, for everybody: it is the session's login that must be a member."""
    login, token, queue = scene.victim_channel.username, scene.victim.joined["token"], scene.victim.queue
    statements = [
        *(call.format(token=token).replace("$1", f"'{queue}'") for call in OWN_CALLS),
        *(call.replace("$1", f"'{SECRET_NAME}'").replace("$2", f"'{queue}'") for call in (*CALLS, *JOINS)),
    ]
    admin = await scene.server.connect(scene.victim_channel.endpoint.database)
    await admin.execute("create schema deputies; grant usage on schema deputies to public")
    try:
        for number, statement in enumerate(statements):
            await admin.execute(
                f"create function deputies.f{number}() returns void language plpgsql security definer"
                f" as $f$ begin perform {statement.removeprefix('select')}; end $f$;"
                f" alter function deputies.f{number}() owner to {login}"
            )
        for number in range(len(statements)):
            error = await refusal(intruder, f"select deputies.f{number}()")
            assert (error["message"], error["sqlstate"]) == ("bus: access denied", "42501"), statements[number]
        # They do work for the member itself; the last joins as the victim.
        for number in range(len(statements)):
            await scene.victim.session.execute(f"select deputies.f{number}()")
    finally:
        await admin.execute("drop schema deputies cascade")
        await admin.close()


@pytest.mark.parametrize("statement", JOINS)
async def test_joining_tells_nothing(intruder, statement):
    unknown = await refusal(intruder, statement, "no-such-channel")
    assert (unknown["message"], unknown["sqlstate"]) == ("bus: access denied", "42501")
    assert await refusal(intruder, statement, SECRET_NAME) == unknown
    assert await refusal(intruder, statement, None) == unknown


async def test_leaving_tells_and_does_nothing(scene: Scene, intruder):
    for channel, queue in [
        (SECRET_NAME, scene.victim.queue), ("own", scene.victim.queue), (SECRET_NAME, scene.own.queue), ("x", "y"),
    ]:  # fmt: skip
        assert await intruder.fetchval("select pgmq_bus_v1.leave($1, $2)", channel, queue) is False
        await intruder.execute("select public.bus_leave($2, $1)", channel, queue)
    assert await scene.victim.publish("still here")
    assert await scene.own.publish("still here")


async def test_a_login_that_is_no_member_any_more_is_refused_at_once(database):
    channel = await database.create_channel()
    peer = await Peer.join(await channel.connect(), channel.name)
    admin = await database.server.connect(database.name)
    role = await admin.fetchval("select role from pgmq_bus.channel")
    await admin.execute(f'revoke "{role}" from "{channel.username}"')
    for call in (peer.read(), peer.publish(1), peer.fetch_roster(), peer.bus_publish(1)):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await call
    # Neither after its plans were made and cached.
    await admin.execute(f'grant "{role}" to "{channel.username}"')
    for _ in range(10):
        await peer.publish(1)
        await peer.read()
    await admin.execute(f'revoke "{role}" from "{channel.username}"')
    for call in (peer.read(), peer.publish(1)):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await call
    peer.session.terminate()
    await admin.close()
