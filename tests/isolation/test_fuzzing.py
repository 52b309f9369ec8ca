"""The client-callable functions under calls that nobody would think of; a model says what must become of each."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import fuzzing
import hypothesis
import postgres
import pytest
from fuzz_calls import SIGNATURES
from fuzz_machine import machine
from fuzz_state import Mismatch
from fuzz_world import World
from hypothesis.stateful import run_state_machine_as_test

pytestmark = pytest.mark.slow

QUICK_SECONDS = 12
NIGHTLY_CALLS = 500_000
"""For each version of PostgreSQL: a million for the two."""
NIGHTLY_SECONDS = 3000
EXAMPLES = 10
"""Runs of the machine at a time, some six hundred steps each."""

SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    stateful_step_count=9,
    derandomize=False,  # Seeded here, each time otherwise.
    deadline=None,
    database=None,
    print_blob=False,
    phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def make_world(server: postgres.Server) -> Iterator[Callable[[], World]]:
    made: list[tuple[World, postgres.Database]] = []
    elsewhere = asyncio.run(postgres.create_database(server))

    def make() -> World:
        database = asyncio.run(postgres.create_database(server))
        world = World(database, elsewhere)
        made.append((world, database))
        return world

    yield make
    for world, database in made:
        world.close()
        asyncio.run(postgres.drop_database(database))
    asyncio.run(postgres.drop_database(elsewhere))


def fuzz(world: World, seed: int, settings: hypothesis.settings = SETTINGS, **bursts: int) -> None:
    """Some runs of the machine. Raises Mismatch with the shortest way there, as SQL."""
    run_state_machine_as_test(hypothesis.seed(seed)(machine(world, **bursts)), settings=settings)


def test_interleaved_sessions(make_world, server, capfd, request, record_property):
    """Two hostile roles and others: nothing foreign is read or changed, and everything is as the model says."""
    world = make_world()
    nightly = fuzzing.PROFILE == "nightly"
    wanted, seconds = (NIGHTLY_CALLS, NIGHTLY_SECONDS) if nightly else (sys.maxsize, QUICK_SECONDS)
    # Other calls for each server.
    seed = int(request.config.option.hypothesis_seed or 0) + 1_000_000 * server.version
    begun = time.monotonic()
    told = begun
    rounds = 0
    while world.calls < wanted and (rounds == 0 or time.monotonic() - begun < seconds):
        fuzz(world, seed + rounds)
        rounds += 1
        if nightly and time.monotonic() - told > 30:
            told = time.monotonic()
            with capfd.disabled():
                rate = world.calls / (told - begun)
                print(f"PostgreSQL {server.version}: {world.calls:,} calls, {rate:,.0f}/s", file=sys.stderr, flush=True)
    record_property("fuzzed", f"PostgreSQL {server.version}: {world.calls:,} calls in {time.monotonic() - begun:.0f} s")
    assert not nightly or world.calls >= wanted, f"{world.calls} calls in {seconds} s, wanted {wanted}"
    assert set(world.made) == set(SIGNATURES)
    assert not [line for line in server.log.splitlines() if "terminated by signal" in line or "PANIC" in line]


@pytest.fixture(scope="module")
def scratch(make_world) -> World:
    return make_world()


MEMBERSHIP = "pg_has_role(SESSION_USER, (to_regrole((c.role)::text))::oid, 'MEMBER'::text)"
MUTATIONS = {
    "anybody joins": ("pgmq_bus.enter", "pg_has_role(session_user, to_regrole(c.role::text), 'MEMBER')", "true"),
    "anybody is a member": ("pgmq_bus.membership", MEMBERSHIP, "true"),
    "any channel will do": ("public.bus_archive", " and m.channel = p_channel", ""),
    "anybody's queue will do": ("public.bus_archive", "m.queue = p_my_queue and ", ""),
    "the roster is everybody's": ("pgmq_bus_v1.roster", "p.channel_id = c.id", "true"),
    "leaving takes others along": ("pgmq_bus.exit", "peer where queue = member.queue returning", "peer returning"),
    "a denial tells": ("pgmq_bus.deny", "'bus: access denied'", "'bus: access denied to ' || coalesce(p_queue, '')"),
    "a read begins too early": ("pgmq_bus_channel.read_{token}", "l.msg_id > p_after", "l.msg_id >= p_after"),
}  # fmt: skip


@contextmanager
def weakened(world: World, weakness: str) -> Iterator[None]:
    """One of the functions does not do all that it should."""
    name, text, weaker = MUTATIONS[weakness]
    name = name.replace("{token}", world.victims[0].channel.token)
    definition = world.definition(name)
    assert text in definition
    world.ask(definition.replace(text, weaker))
    world.take_as_given()
    try:
        yield
    finally:
        world.ask(definition)
        world.take_as_given()


@pytest.mark.parametrize("weakness", MUTATIONS)
def test_a_weakened_function_is_found(scratch: World, weakness: str):
    settings = hypothesis.settings(SETTINGS, phases=[hypothesis.Phase.generate], max_examples=50)
    with weakened(scratch, weakness), pytest.raises(Mismatch):
        fuzz(scratch, 0, settings)


def test_what_is_found_is_made_short(scratch: World):
    settings = hypothesis.settings(SETTINGS, max_examples=100, stateful_step_count=4)
    with weakened(scratch, "anybody joins"), pytest.raises(Mismatch) as found:
        fuzz(scratch, 0, settings, groups=2)
    script = next(note for note in found.value.__notes__ if note.startswith("The calls"))
    calls = [line for line in script.splitlines() if line.startswith("/*")]
    assert len(calls) == 1
    assert "join" in calls[0]
