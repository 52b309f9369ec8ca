"""What a session may set for itself changes nothing of what the functions do."""

import json

import asyncpg
import pytest
from intruders import CALLS, JOINS, OWN_CALLS, SECRET_NAME, Scene, refusal
from wire import Peer, payloads

SETTINGS = [
    "search_path = pg_temp, public, pgmq_bus, pgmq", "search_path = ''", "standard_conforming_strings = off",
    "backslash_quote = on", "escape_string_warning = off", "quote_all_identifiers = on", "transform_null_equals = on",
    "array_nulls = off", "synchronous_commit = off", "synchronous_commit = local", "jit = on", "jit_above_cost = 0",
    "plan_cache_mode = force_generic_plan", "plan_cache_mode = force_custom_plan", "row_security = off",
    "enable_indexscan = off", "enable_sort = off", "enable_nestloop = off", "enable_hashagg = off", "work_mem = '64kB'",
    "statement_timeout = 0", "lock_timeout = 0", "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = 0",
    "default_transaction_isolation = serializable", "default_transaction_isolation = 'repeatable read'",
    "default_transaction_deferrable = on", "timezone = 'Asia/Kathmandu'", "datestyle = 'German, YMD'",
    "intervalstyle = sql_standard", "bytea_output = escape", "extra_float_digits = -15", "client_encoding = LATIN1",
    "client_min_messages = debug5", "debug_print_plan = on", "plpgsql.variable_conflict = use_variable",
    "plpgsql.extra_errors = 'all'",
    "plpgsql.check_asserts = off", "check_function_bodies = off", "temp_buffers = '800kB'",
    "default_table_access_method = heap", "from_collapse_limit = 1", "geqo_threshold = 2", "constraint_exclusion = on",
    "cursor_tuple_fraction = 0", "parallel_setup_cost = 0", "min_parallel_table_scan_size = 0", "xmloption = document",
    "exit_on_error = off", "application_name = 'bus_runtime'", "pgmq_bus.alive_1 = yes",
]  # fmt: skip

NOT_ALLOWED = [
    "session_replication_role = replica", "log_statement = none", "temp_file_limit = -1", "commit_delay = 1000",
    "lc_messages = 'C'", "allow_system_table_mods = on", "ignore_checksum_failure = on", "zero_damaged_pages = on",
    "session_preload_libraries = 'x'", "deadlock_timeout = 1", "max_stack_depth = '7MB'",
    "update_process_title = off", "track_activities = off", "compute_query_id = off",
]  # fmt: skip
"""A superuser's: 42501."""


async def use(session: asyncpg.Connection) -> list[object]:
    """What a peer does, and what comes of it."""
    joined = json.loads(await session.fetchval("select pgmq_bus_v1.join_channel('own', null)"))
    peer = Peer(session, "own", joined["queue"], joined, after=joined["position"])
    foreign = await Peer.bus_join(session, "own")
    await peer.publish(1, {"a": None}, "\\ \u00e9")
    await foreign.bus_publish("2")
    rows = await foreign.bus_subscribe()
    seen: list[object] = [payloads(await peer.read()), payloads(rows)]
    first = (await peer.publish("last"))[0]
    seen.append([row.msg_id - first for row in await peer.read()])
    seen.append((await peer.fetch_roster())["foreign"])
    seen.append(await foreign.bus_archive(rows[-1].msg_id))
    async with session.transaction():
        await peer.publish("durable")
        seen.append(await session.fetchval("select pg_catalog.current_setting('synchronous_commit') = 'off'"))
    await foreign.bus_leave()
    seen.append(await peer.leave())
    return seen


@pytest.fixture(scope="module")
def usual() -> list[object]:
    published = [1, {"a": None}, "\\ \u00e9", "2"]
    return [published, published, [0], True, True, False, True]


async def test_settings_change_nothing(scene: Scene, databases, usual):
    own = databases[3]
    wrong = {}
    for setting in SETTINGS:
        session = await own.connect()
        try:
            await session.execute(f"set {setting}")
            seen = await use(session)
            if seen != usual:
                wrong[setting] = seen
            for statement in (*CALLS, *JOINS):
                arguments = (SECRET_NAME, scene.victim.queue)[: 1 + ("$2" in statement)]
                denied = await refusal(session, statement, *arguments)
                if (denied["sqlstate"], denied["message"]) != ("42501", "bus: access denied"):
                    wrong[setting, statement] = denied
            for statement in OWN_CALLS:
                denied = await refusal(session, statement.format(token=scene.own.joined["token"]), scene.victim.queue)
                if (denied["sqlstate"], denied["message"]) != ("42501", "bus: access denied"):
                    wrong[setting, statement] = denied
        finally:
            session.terminate()
    assert wrong == {}


async def test_settings_that_are_not_a_sessions_own(scene: Scene):
    outcomes = {}
    for setting in NOT_ALLOWED:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await scene.stranger.execute(f"set {setting}")
        outcomes[setting] = caught.value.sqlstate
    assert {setting: state for setting, state in outcomes.items() if state != "42501"} == {}


async def test_a_session_that_times_out_or_may_not_write_leaves_nothing(scene: Scene, databases):
    """Statements that are cut off anywhere, and a transaction that may not write: the channel goes on."""
    session = await databases[3].connect()
    peer = await Peer.join(session, "own")
    try:
        await session.execute("set default_transaction_read_only = on")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await peer.publish(1)
        await session.execute("set default_transaction_read_only = off; set statement_timeout = '1ms'")
        for _ in range(20):
            try:
                await peer.publish(*range(200))
            except asyncpg.QueryCanceledError:
                continue
    finally:
        session.terminate()
    ids = await scene.own.publish("next")
    assert payloads(await scene.own.read(after=ids[0] - 1)) == ["next"]


async def test_plans_sent_to_the_client_name_nothing(scene: Scene, databases):
    """A session may have the plans of all its statements sent to it, those inside functions included."""
    session = await databases[3].connect()
    told: list[str] = []
    session.add_log_listener(lambda _, message: told.append(str(message.as_dict())))
    try:
        await session.execute("set client_min_messages = log; set debug_print_plan = on; set debug_print_parse = on")
        for statement in (*CALLS, *JOINS):
            arguments = ("guessed", "guessed")[: 1 + ("$2" in statement)]
            await refusal(session, statement, *arguments)
        await refusal(session, OWN_CALLS[0].format(token=scene.own.joined["token"]), "guessed")
    finally:
        session.terminate()
    assert any("PLANNEDSTMT" in text for text in told)  # they are sent
    secrets = [SECRET_NAME, scene.victim.queue, scene.victim.joined["wake"], scene.victim_channel.username]
    for secret in secrets:
        as_bytes = " ".join(str(byte) for byte in secret.encode())
        assert not any(secret in text or as_bytes in text for text in told)
