"""What a wrong call gets: the exact SQLSTATE and message, and no change."""

from dataclasses import dataclass

import asyncpg
import postgres
import pytest
from wire import Peer, payloads

BIG = 2**31 - 1
HUGE = 2**63 - 1
INVALID = "22023"
DENIED = ("42501", "bus: access denied")
OPTIONS = "bus: peer, application, host, runtime and address must be texts, since digits, listens a boolean"
ADDRESS = "bus: address must look like 10.0.0.1:12345 or [fd00::1]:12345"

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
        OPTIONS,
    ),
    "join nested": (
        "pgmq_bus_v1.join_channel('{c}', '{{\"host\": {{\"a\": []}}}}')",
        INVALID,
        OPTIONS,
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
    "former publish null": (
        "pgmq_bus_v1.publish('{c}', '{q}', null)",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got null",
    ),
    "former publish null message": (
        "pgmq_bus_v1.publish('{c}', '{q}', array[null::jsonb])",
        INVALID,
        "bus: a message must not be null",
    ),
    "former publish null queue": ("pgmq_bus_v1.publish('{c}', null, array['1'::jsonb])", *DENIED),
    "former publish null channel": ("pgmq_bus_v1.publish(null, '{q}', array['1'::jsonb])", *DENIED),
    "former publish elsewhere": ("pgmq_bus_v1.publish('other', '{q}', array['1'::jsonb])", *DENIED),
    "former read null queue": ("pgmq_bus_v1.read('{c}', null, 0, null, 30, 10)", *DENIED),
    "former read elsewhere": ("pgmq_bus_v1.read('other', '{q}', 0, null, 30, 10)", *DENIED),
    "publish null": (
        "{publish}('{q}', null)",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got null",
    ),
    "publish empty": (
        "{publish}('{q}', '{{}}')",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got 0",
    ),
    "publish too many": (
        "{publish}('{q}', array_fill('1'::text, array[10001]))",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got 10001",
    ),
    "publish too many in rows": (
        "{publish}('{q}', array_fill('1'::text, array[73, 137]))",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got 10001",
    ),
    "publish one null": ("{publish}('{q}', array[null]::text[])", INVALID, "bus: a message must not be null"),
    "publish null element": ("{publish}('{q}', array['1', null, '2'])", INVALID, "bus: a message must not be null"),
    "publish nulls": (
        "{publish}('{q}', array_fill(null::text, array[10000]))",
        INVALID,
        "bus: a message must not be null",
    ),
    "publish nested single": ("{publish}('{q}', array[array['1']])", INVALID, "bus: a message must not be null"),
    "publish no json": ("{publish}('{q}', array['{{'])", "22P02", "invalid input syntax for type json"),
    "publish no json in a batch": ("{publish}('{q}', array['1', ''])", "22P02", "invalid input syntax for type json"),
    "publish two values": ("{publish}('{q}', array['1 2'])", "22P02", "invalid input syntax for type json"),
    "publish not a number": ("{publish}('{q}', array['NaN'])", "22P02", "invalid input syntax for type json"),
    "publish nul": ("{publish}('{q}', array['\"\\u0000\"'])", "22P05", "unsupported Unicode escape sequence"),
    "publish nul in a batch": (
        "{publish}('{q}', array['1', '\"\\u0000\"'])",
        "22P05",
        "unsupported Unicode escape sequence",
    ),
    "publish surrogate": ("{publish}('{q}', array['\"\\ud800\"'])", "22P02", "invalid input syntax for type json"),
    "publish deep": (
        "{publish}('{q}', array[repeat('[', 100000) || repeat(']', 100000)])",
        "54001",
        "stack depth limit exceeded",
    ),
    "publish large": (
        "{publish}('{q}', array[to_jsonb(repeat('x', 2047))::text])",
        "54000",
        "bus: message of 2049 bytes exceeds this channel's limit of 2048 bytes",
    ),
    "publish one large": (
        "{publish}('{q}', array['1', to_jsonb(repeat('x', 3000))::text, '2'])",
        "54000",
        "bus: message of 3002 bytes exceeds this channel's limit of 2048 bytes",
    ),
    "publish large in bytes": (
        "{publish}('{q}', array[to_jsonb(repeat(U&'\\20AC', 1000))::text])",
        "54000",
        "bus: message of 3002 bytes exceeds this channel's limit of 2048 bytes",
    ),
    # Nine bytes that PostgreSQL writes as 131072: readers would get them so.
    "publish blown up": (
        "{publish}('{q}', array['1e131071'])",
        "54000",
        "bus: message of 131072 bytes exceeds this channel's limit of 2048 bytes",
    ),
    "publish blown up in a batch": (
        "{publish}('{q}', array['1', '[1e131071, 1e131071]'])",
        "54000",
        "bus: message of 262148 bytes exceeds this channel's limit of 2048 bytes",
    ),
    "publish small blown up": (
        "{publish}('{q}', array['1e-16383'])",
        "54000",
        "bus: message of 16385 bytes exceeds this channel's limit of 2048 bytes",
    ),
    "publish overflowing": ("{publish}('{q}', array['1e131072'])", "22003", "value overflows numeric format"),
    "publish null queue": ("{publish}(null, array['1'])", *DENIED),
    "publish as the channel": ("{publish}('{c}', array['1'])", *DENIED),
    # What is wrong with a call is told to members only.
    "publish null null": (
        "{publish}(null, null)",
        INVALID,
        "bus: the number of messages must be between 1 and 10000, got null",
    ),
    "bus_subscribe null": ("bus_subscribe(null, null, 30, 1, 0)", *DENIED),
    "bus_subscribe swapped": ("bus_subscribe('{c}', '{q}', 30, 1, 0)", *DENIED),
    "bus_archive null queue": ("bus_archive(null, '{c}', 1)", *DENIED),
    "bus_archive out of range": (f"bus_archive('{{q}}', '{{c}}', {HUGE + 1})", "42883", None),
    "read null queue": ("{read}(null, 0, null, 1, null)", *DENIED),
    "roster null": ("pgmq_bus_v1.roster(null, null)", *DENIED),
    "roster swapped": ("pgmq_bus_v1.roster('{q}', '{c}')", *DENIED),
    "notify null": ("pgmq_bus_v1.notify(null, null)", *DENIED),
    "notify swapped": ("pgmq_bus_v1.notify('{q}', '{c}')", *DENIED),
    "wake_by null": ("pgmq_bus_v1.wake_by(null, null, null, null)", *DENIED),
    "wake_by swapped": ("pgmq_bus_v1.wake_by('{q}', '{c}', null, true)", *DENIED),
    "wake_by name": ("pgmq_bus_v1.wake_by('{c}', '{q}', 'localhost:4000', true)", INVALID, ADDRESS),
    "join address": ("pgmq_bus_v1.join_channel('{c}', '{{\"address\": \"10.0.0.1:80\"}}')", INVALID, ADDRESS),
    "join address number": ("pgmq_bus_v1.join_channel('{c}', '{{\"address\": 4}}')", INVALID, OPTIONS),
    "join listens text": ("pgmq_bus_v1.join_channel('{c}', '{{\"listens\": \"true\"}}')", INVALID, OPTIONS),
    "join listens number": ("pgmq_bus_v1.join_channel('{c}', '{{\"listens\": 1}}')", INVALID, OPTIONS),
    "join since number": ("pgmq_bus_v1.join_channel('{c}', '{{\"since\": 1}}')", INVALID, OPTIONS),
    "join since word": ("pgmq_bus_v1.join_channel('{c}', '{{\"since\": \"-infinity\"}}')", INVALID, OPTIONS),
    "join since long": (
        "pgmq_bus_v1.join_channel('{c}', jsonb_build_object('since', repeat('9', 17)))",
        INVALID,
        OPTIONS,
    ),
}
for name, arguments, parameter, bounds in [
    ("subscribe vt", "'{q}', '{c}', {value}, 1, 0", "p_vt", "between 1 and 43200"),
    ("subscribe qty", "'{q}', '{c}', 30, {value}, 0", "p_qty", "between 1 and 10000"),
    ("subscribe seconds", "'{q}', '{c}', 30, 1, {value}", "p_max_seconds", "between 0 and 3600"),
]:
    for value in ("null", "-1", str(BIG), str(-BIG - 1), *(["0"] if "between 1" in bounds else [])):
        call = f"bus_subscribe({arguments})".replace("{value}", value)
        BAD_CALLS[f"{name} {value}"] = (call, INVALID, f"bus: {parameter} must be {bounds}, got {value}")
for value in ("null", "-1", str(BIG), str(-BIG - 1), "10001"):
    BAD_CALLS[f"read limit {value}"] = (
        f"{{read}}('{{q}}', 0, null, {value}, null)",
        INVALID,
        f"bus: p_limit must be between 0 and 10000, got {value}",
    )
for value in ("null", "-1", str(-HUGE - 1)):
    BAD_CALLS[f"read after {value}"] = (
        f"{{read}}('{{q}}', {value}, null, 1, null)",
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
    await peer.bus_subscribe()
    return Target(channel, peer)


async def state(admin: asyncpg.Connection, target: Target) -> str:
    """All that a call could have changed, but for the log's sequence: refused messages leave a gap."""
    return await admin.fetchval(
        "select jsonb_build_object('channel', c, 'state', s, 'peers', jsonb_agg(p order by p.queue),"
        f" 'log', (select jsonb_agg(l) from pgmq.q_bus_{target.peer.joined['token']} as l))::text"
        " from pgmq_bus.channel as c join pgmq_bus.channel_state as s on s.channel_id = c.id"
        " left join pgmq_bus.peer as p on p.channel_id = c.id where c.name = $1 group by c.id, s.channel_id",
        target.channel.name,
    )


async def test_bad_calls(target: Target, admin):
    before = await state(admin, target)
    assert target.peer.queue in before
    wrong = {}
    token = target.peer.joined["token"]
    for name, (call, sqlstate, message) in BAD_CALLS.items():
        schema = "" if call.startswith(("pgmq_bus_v1.", "{")) else "public."
        statement = f"select * from {schema}{call}".format(
            c=target.channel.name,
            q=target.peer.queue,
            publish=f"pgmq_bus_channel.publish_{token}",
            read=f"pgmq_bus_channel.read_{token}",
        )
        try:
            result = await target.peer.session.fetch(statement)
        except asyncpg.PostgresError as error:
            got = (error.sqlstate, error.message)
            if got[0] != sqlstate or (message is not None and got[1] != message):
                wrong[name] = got
        else:
            wrong[name] = ("no error", result)
    assert wrong == {}
    assert await state(admin, target) == before
    # Nor do they keep anybody from publishing and reading.
    await target.peer.publish("second")
    assert payloads(await target.peer.read()) == ["first", "second"]


@pytest.mark.parametrize("number", [None, -1, 0, 2, -HUGE - 1, HUGE])
async def test_archiving_what_was_not_delivered_changes_nothing(target: Target, admin, number):
    query = "select acknowledged, position, visible_at from pgmq_bus.peer where queue = $1"
    await target.peer.publish("second")
    before = await admin.fetchrow(query, target.peer.queue)
    assert await target.peer.bus_archive(number) is False
    assert await admin.fetchrow(query, target.peer.queue) == before


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
    ids += await target.peer.publish(message)
    ids += await target.peer.publish(message, message)
    rows = await target.peer.read(after=ids[0] - 1)
    assert payloads(rows) == [message] * 4
    assert [row.msg_id for row in rows] == ids


@pytest.mark.parametrize(
    "array",
    [
        "array['1', '2', '3', '4']",
        "array[array['1', '2'], array['3', '4']]",
        "'[7:10]={1,2,3,4}'::text[]",
        "array[' 1', E'2\\n', E'\\t3', '4 ']",
    ],
)
async def test_arrays_of_other_shapes_are_read_in_order(target: Target, array):
    publish = f"pgmq_bus_channel.publish_{target.peer.joined['token']}"
    ids = await target.peer.session.fetchval(f"select ids from {publish}($1, {array})", target.peer.queue)
    rows = await target.peer.read(after=ids[0] - 1)
    assert [(row.msg_id, row.message) for row in rows] == list(zip(ids, [1, 2, 3, 4], strict=True))


async def test_a_single_message_with_another_index_is_one(target: Target):
    publish = f"pgmq_bus_channel.publish_{target.peer.joined['token']}"
    statement = f"select ids from {publish}($1, '[-3:-3]={{1}}'::text[])"
    assert len(await target.peer.session.fetchval(statement, target.peer.queue)) == 1


async def test_a_json_null_is_a_message(target: Target):
    ids = await target.peer.publish(None)
    ids += await target.peer.publish(None, None)
    rows = await target.peer.session.fetch(
        f"select * from pgmq_bus_channel.read_{target.peer.joined['token']}($1, $2, null, 10, 0)",
        target.peer.queue, ids[0] - 1,
    )  # fmt: skip
    assert [(row["msg_id"], row["message"]) for row in rows if row["msg_id"]] == [(n, "null") for n in ids]


async def publish_one(peer: Peer, message: object) -> object:
    return await peer.publish(message)


async def publish_in_a_batch(peer: Peer, message: object) -> object:
    return await peer.publish(1, message, 2)


async def publish_by_wrapper(peer: Peer, message: object) -> object:
    return await peer.bus_publish(message)


@pytest.mark.parametrize("way", [publish_one, publish_in_a_batch, publish_by_wrapper])
async def test_the_limit_on_bytes_counts_the_json_text(target: Target, way):
    assert await way(target.peer, "x" * 2046)
    assert await way(target.peer, "\u20ac" * 682)  # three bytes each
    assert await way(target.peer, [1, 2] * 341)  # 2046 bytes as PostgreSQL writes it
    for message in ("x" * 2047, "\u20ac" * 682 + "x", [1, 2] * 341 + [12]):
        with pytest.raises(asyncpg.ProgramLimitExceededError) as caught:
            await way(target.peer, message)
        assert caught.value.hint == "Send less, or raise limits.maxMessageBytes of the BusChannel."


async def test_the_largest_batches_are_taken(target: Target):
    ids = await target.peer.publish(*range(10_000))
    assert len(ids) == 10_000
    assert len(await target.peer.read(limit=10_000)) == 10_000


async def test_a_message_of_the_greatest_limit_passes(make_channel, join):
    peer = await join(await make_channel(limits={"maxMessageBytes": 16_777_216}))
    message = "x" * (16_777_216 - 2)
    await peer.bus_publish(message)
    assert payloads(await peer.bus_subscribe()) == [message]
    await peer.publish(message)
    await peer.publish(message, 1)
    assert payloads(await peer.read()) == [message, message, message, 1]


async def test_a_peer_may_describe_itself_at_any_length(make_channel, join, admin):
    peer = await join(await make_channel(), application="a" * 5000, host="", runtime=None)
    row = await admin.fetchrow("select application, host, runtime from pgmq_bus.peer where queue = $1", peer.queue)
    assert tuple(row) == ("a" * 200, "", None)
