"""What a wrong call gets: the exact SQLSTATE and message, and no change."""

import json
from dataclasses import dataclass

import asyncpg
import postgres
import pytest
from wire import Peer

BIG = 2**31 - 1
HUGE = 2**63 - 1
INVALID = "22023"
DENIED = ("42501", "bus: access denied")

# {c}: the channel; {q}: the peer's queue. Statements are literals, as a careless client might write them.
BAD_CALLS = {
    "bus_join null": ("bus_join(null)", *DENIED),
    "bus_join empty": ("bus_join('')", *DENIED),
    "bus_join odd": ("bus_join(E'\\u202e\\U0001F600')", *DENIED),
    "bus_join quoted": ("bus_join('x''; drop table pgmq_bus.peer; --')", *DENIED),
    "join null": ("pgmq_bus_v1.join_channel(null, '{{}}')", *DENIED),
    "join array": ("pgmq_bus_v1.join_channel('{c}', '[]')", INVALID, "bus: p_options must be an object"),
    "join string": ("pgmq_bus_v1.join_channel('{c}', '\"peer\"')", INVALID, "bus: p_options must be an object"),
    "join json null": ("pgmq_bus_v1.join_channel('{c}', 'null')", INVALID, "bus: p_options must be an object"),
    "join number": (
        "pgmq_bus_v1.join_channel('{c}', '{{\"peer\": 7}}')",
        INVALID,
        "bus: peer, application, host and runtime must be texts",
    ),
    "join nested": (
        "pgmq_bus_v1.join_channel('{c}', '{{\"host\": {{\"a\": []}}}}')",
        INVALID,
        "bus: peer, application, host and runtime must be texts",
    ),
    "join empty name": (
        "pgmq_bus_v1.join_channel('{c}', '{{\"peer\": \"\"}}')",
        INVALID,
        "bus: a peer name has 1 to 200 characters",
    ),
    "join long name": (
        "pgmq_bus_v1.join_channel('{c}', jsonb_build_object('peer', repeat('x', 201)))",
        INVALID,
        "bus: a peer name has 1 to 200 characters",
    ),
    "bus_publish null": ("bus_publish('{c}', '{q}', null)", INVALID, "bus: a message must not be null"),
    "bus_publish null queue": ("bus_publish('{c}', null, '1')", *DENIED),
    "bus_publish null channel": ("bus_publish(null, '{q}', '1')", *DENIED),
    "bus_publish nul": (
        "bus_publish('{c}', '{q}', '\"\\u0000\"')",
        "22P05",
        "unsupported Unicode escape sequence",
    ),
    "bus_publish surrogate": (
        "bus_publish('{c}', '{q}', '\"\\ud800\"')",
        "22P02",
        "invalid input syntax for type json",
    ),
    "bus_publish no json": ("bus_publish('{c}', '{q}', '{{')", "22P02", "invalid input syntax for type json"),
    "bus_publish deep": (
        "bus_publish('{c}', '{q}', (repeat('[', 100000) || repeat(']', 100000))::jsonb)",
        "54001",
        "stack depth limit exceeded",
    ),
    "bus_publish large": (
        "bus_publish('{c}', '{q}', to_jsonb(repeat('x', 2047)))",
        "54000",
        "bus: message of 2049 bytes exceeds this channel's limit of 2048 bytes",
    ),
    "bus_publish large in bytes": (
        "bus_publish('{c}', '{q}', to_jsonb(repeat(U&'\\20AC', 1000)))",
        "54000",
        "bus: message of 3002 bytes exceeds this channel's limit of 2048 bytes",
    ),
    "publish null": (
        "pgmq_bus_v1.publish('{c}', '{q}', null)",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got null",
    ),
    "publish empty": (
        "pgmq_bus_v1.publish('{c}', '{q}', '{{}}')",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got 0",
    ),
    "publish huge": (
        "pgmq_bus_v1.publish('{c}', '{q}', array_fill('1'::jsonb, array[10001]))",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got 10001",
    ),
    "publish two-dimensional": (
        "pgmq_bus_v1.publish('{c}', '{q}', array_fill('1'::jsonb, array[2, 2]))",
        INVALID,
        "bus: the number of dimensions of p_messages must be between 1 and 1, got 2",
    ),
    "publish null element": (
        "pgmq_bus_v1.publish('{c}', '{q}', array['1', null, '2']::jsonb[])",
        INVALID,
        "bus: a message must not be null",
    ),
    "publish one large": (
        "pgmq_bus_v1.publish('{c}', '{q}', array['1', to_jsonb(repeat('x', 3000))]::jsonb[])",
        "54000",
        "bus: message of 3002 bytes exceeds this channel's limit of 2048 bytes",
    ),
    "bus_subscribe null": ("bus_subscribe(null, null, 30, 1, 0)", *DENIED),
    "bus_subscribe swapped": ("bus_subscribe('{c}', '{q}', 30, 1, 0)", *DENIED),
    "bus_archive null queue": ("bus_archive(null, '{c}', 1)", *DENIED),
    "bus_archive out of range": (f"bus_archive('{{q}}', '{{c}}', {HUGE + 1})", "42883", None),
    "read null": ("pgmq_bus_v1.read(null, null, 0, null, 30, 1)", *DENIED),
}
for name, arguments, parameter, bounds in [
    ("subscribe vt", "'{q}', '{c}', {value}, 1, 0", "p_vt", "between 1 and 43200"),
    ("subscribe qty", "'{q}', '{c}', 30, {value}, 0", "p_qty", "between 1 and 10000"),
    ("subscribe seconds", "'{q}', '{c}', 30, 1, {value}", "p_max_seconds", "between 0 and 3600"),
]:
    for value in ("null", "-1", str(BIG), str(-BIG - 1), *(["0"] if "between 1" in bounds else [])):
        call = f"bus_subscribe({arguments})".replace("{value}", value)
        BAD_CALLS[f"{name} {value}"] = (call, INVALID, f"bus: {parameter} must be {bounds}, got {value}")
for name, arguments, parameter, bounds in [
    ("read visibility", "'{c}', '{q}', 0, null, {value}, 1", "p_visibility_seconds", "between 1 and 43200"),
    ("read limit", "'{c}', '{q}', 0, null, 30, {value}", "p_limit", "between 0 and 10000"),
]:
    for value in ("null", "-1", str(BIG), str(-BIG - 1)):
        call = f"pgmq_bus_v1.read({arguments})".replace("{value}", value)
        BAD_CALLS[f"{name} {value}"] = (call, INVALID, f"bus: {parameter} must be {bounds}, got {value}")
for value in ("-1", str(-HUGE - 1)):
    BAD_CALLS[f"read after {value}"] = (
        f"pgmq_bus_v1.read('{{c}}', '{{q}}', {value}, null, 30, 1)",
        INVALID,
        f"bus: p_after must be between 0 and {HUGE}, got {value}",
    )


@dataclass
class Target:
    """Where the bad calls go: a channel that allows 2048 bytes, with one message that its peer has in hand."""

    channel: postgres.Channel
    peer: Peer


@pytest.fixture
async def target(make_channel, join) -> Target:
    channel = await make_channel(limits={"maxMessageBytes": 2048})
    peer = await join(channel)
    await peer.publish("first")
    await peer.read()
    return Target(channel, peer)


async def state(admin: asyncpg.Connection, channel: postgres.Channel) -> str:
    """All that a call could have changed."""
    return await admin.fetchval(
        "select jsonb_agg(to_jsonb(p) order by p.queue)::text || (select pgmq_bus.head(c.id))"
        " from pgmq_bus.channel as c left join pgmq_bus.peer as p on p.channel_id = c.id"
        " where c.name = $1 group by c.id",
        channel.name,
    )


async def test_bad_calls(target: Target, admin):
    before = await state(admin, target.channel)
    wrong = {}
    for name, (call, sqlstate, message) in BAD_CALLS.items():
        schema = "" if call.startswith("pgmq_bus_v1.") else "public."
        statement = f"select * from {schema}{call}".format(c=target.channel.name, q=target.peer.queue)
        try:
            result = await target.peer.session.fetch(statement)
        except asyncpg.PostgresError as error:
            got = (error.sqlstate, error.message)
            if got[0] != sqlstate or (message is not None and got[1] != message):
                wrong[name] = got
        else:
            wrong[name] = ("no error", result)
    assert wrong == {}
    assert await state(admin, target.channel) == before


@pytest.mark.parametrize("number", [None, -1, 0, -HUGE - 1, HUGE])
async def test_archiving_what_was_not_delivered_changes_nothing(target: Target, admin, number):
    query = "select acknowledged, position, visible_at from pgmq_bus.peer where queue = $1"
    before = await admin.fetchrow(query, target.peer.queue)
    assert await target.peer.bus_archive(number) is False
    await target.peer.read(after=1, acknowledge=number, limit=0)
    after = await admin.fetchrow(query, target.peer.queue)
    assert tuple(after)[:2] == tuple(before)[:2]


@pytest.mark.parametrize(
    "message",
    [
        {"text": "\u03c0 \U0001f600 \u202e \ud7ff \uffff \x7f \\ \" ' $$ %s {0}"},
        {"k\ny": [None, True, 0.1, -2.5e-7, 12345678901234567890123]},
        "x" * 2000,
        [[[[[[[[[[[]]]]]]]]]]],
        "",
        {},
        False,
    ],
)
async def test_odd_messages_arrive_as_they_were(target: Target, message):
    ids = await target.peer.bus_publish(message)
    rows = await target.peer.read(after=ids[0] - 1)
    assert rows[-1].message == json.loads(json.dumps(message))


@pytest.mark.parametrize("size", [2046, 2047])
async def test_the_limit_on_bytes_counts_the_json_text(target: Target, size):
    if size == 2046:
        assert await target.peer.bus_publish("x" * size)
    else:
        with pytest.raises(asyncpg.ProgramLimitExceededError) as caught:
            await target.peer.bus_publish("x" * size)
        assert caught.value.hint == "Send less, or raise limits.maxMessageBytes of the BusChannel."


async def test_the_largest_batches_are_taken(target: Target):
    ids = await target.peer.publish(*range(10_000))
    assert len(ids) == 10_000
    assert len(await target.peer.read(limit=10_000)) == 10_000


async def test_a_message_of_the_greatest_limit_passes(make_channel, join):
    peer = await join(await make_channel(limits={"maxMessageBytes": 16_777_216}))
    await peer.bus_publish("x" * (16_777_216 - 2))
    assert len((await peer.bus_subscribe())[0].message) == 16_777_214


async def test_a_peer_may_describe_itself_at_any_length(make_channel, join, admin):
    peer = await join(await make_channel(), application="a" * 5000, host="", runtime=None)
    row = await admin.fetchrow("select application, host, runtime from pgmq_bus.peer where queue = $1", peer.queue)
    assert tuple(row) == ("a" * 200, "", None)
