"""Who is on a channel and how each is woken: what the roster says, and when its version grows."""

import asyncio
import base64
import json

import asyncpg
import pytest
from wire import Peer

HERE, THERE = "10.0.0.1:40000", "[fd00::1]:40001"
VERSION = "select roster from pgmq_bus.channel where name = $1"


async def test_the_roster_tells_how_to_reach_the_others(make_channel, join, connect):
    channel = await make_channel()
    one = await join(channel, address=HERE)
    two = await join(channel, address=THERE)
    roster = await one.fetch_roster()
    assert len(base64.b64decode(roster.pop("key"))) == 32
    assert roster == {
        "version": 3, "wake": one.joined["wake"], "peers": 2, "foreign": False, "watches": True,
        "listeners": False, "addresses": [THERE],
    }  # fmt: skip
    assert (await two.fetch_roster())["addresses"] == [HERE]
    assert (await two.fetch_roster())["key"] == (await one.fetch_roster())["key"]
    await Peer.bus_join(await connect(channel), channel.name)
    await join(channel, listens=True)
    roster = await one.fetch_roster()
    assert (roster["peers"], roster["foreign"], roster["listeners"]) == (4, True, True)
    assert roster["addresses"] == [THERE]


async def test_the_roster_names_no_queue(make_channel, join):
    channel = await make_channel()
    one, two = await join(channel, address=HERE, peer="worker"), await join(channel, address=THERE)
    text = json.dumps(await one.fetch_roster())
    assert two.joined["wake"] in text  # a search that finds what is there
    assert one.queue not in text
    assert two.queue not in text


async def test_the_first_that_can_be_rung_watches_for_the_others(make_channel, join, connect, elapse):
    channel = await make_channel()
    await Peer.bus_join(await connect(channel), channel.name)
    deaf = await join(channel)
    peers = [await join(channel, address=f"10.0.0.{n}:4000") for n in range(1, 5)]

    async def watchers() -> list[int]:
        return [n for n, peer in enumerate(peers) if (await peer.fetch_roster())["watches"]]

    assert (await deaf.fetch_roster())["watches"] is False
    assert await watchers() == [0]
    await peers.pop(0).leave()
    assert await watchers() == [0]
    await peers[0].wake_by(None)
    assert await watchers() == [1]
    await elapse(peers[1], "11 minutes")
    assert await watchers() == [2]


async def test_peers_past_their_timeout_are_not_in_it(make_channel, join, elapse, admin):
    channel = await make_channel()
    one, gone = await join(channel), await join(channel, address=HERE, listens=True)
    before = await one.fetch_roster()
    assert before["addresses"] == [HERE]
    await elapse(gone, "11 minutes")
    during = await one.fetch_roster()
    assert (during["peers"], during["addresses"], during["listeners"]) == (1, [], False)
    # When it comes back, publishers that looked meanwhile must look again.
    await gone.read()
    after = await one.fetch_roster()
    assert after["version"] > during["version"]
    assert after["addresses"] == [HERE]
    await elapse(gone, "9 minutes")
    await gone.read()
    assert (await one.fetch_roster())["version"] == after["version"]


@pytest.mark.parametrize("durability", ["Sync", "Async", "Unlogged"])
async def test_every_call_returns_a_changed_rosters_version(make_channel, join, connect, admin, durability):
    channel = await make_channel(durability=durability)
    one, reader = await join(channel), await join(channel)
    other = await join(channel, peer="worker")
    key = "update pgmq_bus.channel set doorbell_key = default, roster = roster + 1 where name = $1"
    foreign = await connect(channel)
    known = await admin.fetchval(VERSION, channel.name)
    await reader.read()
    assert reader.roster == known

    async def grew() -> None:
        nonlocal known
        _, version = await one.publish_texts(["1"])
        assert version == await admin.fetchval(VERSION, channel.name) > known
        known = version
        _, again = await one.publish_texts(["1", "2"])
        assert again == known
        await reader.read(limit=0)
        assert reader.roster == known
        # Known to the reader: no row.
        rows = await reader.session.fetch(
            f"select * from pgmq_bus_channel.read_{reader.joined['token']}($1, $2, null, 0, $3)", reader.queue, 0, known
        )
        assert rows == []

    late = await join(channel)
    await grew()
    await late.leave()
    await grew()
    await other.wake_by(HERE)
    await grew()
    await other.wake_by(None, listens=True)
    await grew()
    await join(channel, peer="worker")
    await grew()
    stranger = await Peer.bus_join(foreign, channel.name)
    await grew()
    await stranger.bus_leave()
    await grew()
    await admin.execute(key, channel.name)
    await grew()


async def test_reading_publishing_and_acknowledging_do_not_change_it(make_channel, join, connect, admin):
    channel = await make_channel()
    one, foreign = await join(channel), await Peer.bus_join(await connect(channel), channel.name)
    before = await admin.fetchval(VERSION, channel.name)
    ids = await one.publish(1, 2)
    await one.read(acknowledge=ids[0])
    await foreign.bus_publish(3)
    await foreign.bus_archive((await foreign.bus_subscribe())[0].msg_id)
    await one.notify()
    assert await admin.fetchval(VERSION, channel.name) == before


async def test_wake_by_changes_the_callers_entry_only(make_channel, join):
    channel = await make_channel()
    one, two = await join(channel, address=HERE), await join(channel, address=THERE)
    version = await one.wake_by(None, listens=True)
    roster = await two.fetch_roster()
    assert (roster["version"], roster["addresses"], roster["listeners"]) == (version, [], True)
    assert (await one.fetch_roster())["addresses"] == [THERE]
    assert await one.wake_by(HERE, listens=None) == version + 1
    roster = await two.fetch_roster()
    assert (roster["addresses"], roster["listeners"]) == ([HERE], False)


async def test_who_publishes_and_then_goes_in_one_transaction_waits_for_nobody(make_channel, join, connect, waits):
    channel = await make_channel()
    one, two, three = [await join(channel) for _ in range(3)]
    session = await connect(channel)
    calls = [(one, lambda: one.wake_by(HERE)), (two, two.leave), (three, lambda: join(channel, three.session))]
    for peer, call in calls:
        # Less than the five seconds after which whoever waits for the channel gives up.
        async with asyncio.timeout(4):
            async with peer.session.transaction():
                await peer.publish("x")
                joining = asyncio.create_task(join(channel, session))
                await waits(session)
                await call()
            await joining


async def test_a_takeover_replaces_the_address(make_channel, join):
    channel = await make_channel()
    await join(channel, peer="worker", address=HERE, listens=True)
    other = await join(channel)
    assert (await other.fetch_roster())["addresses"] == [HERE]
    await join(channel, peer="worker", address=THERE)
    roster = await other.fetch_roster()
    assert (roster["addresses"], roster["listeners"]) == ([THERE], False)


async def test_whoever_publishes_after_a_join_was_committed_knows_of_it(make_channel, join, connect):
    """The version comes from under the publish lock: a peer is in the roster of it, or the message is not yet there."""
    channel = await make_channel()
    publisher = await join(channel)
    sessions = [await connect(channel) for _ in range(4)]
    versions: list[tuple[int, int]] = []
    done = asyncio.Event()

    async def publish() -> None:
        while not done.is_set():
            ids, version = await publisher.publish_texts(["1"])
            versions.append((ids[0], version))

    async def come_and_go(session: asyncpg.Connection) -> list[tuple[int, int]]:
        seen = []
        for _ in range(15):
            peer = await join(channel, session)
            seen.append((peer.joined["position"], (await peer.fetch_roster())["version"]))
        return seen

    async with asyncio.TaskGroup() as group:
        publishing = group.create_task(publish())
        joining = [group.create_task(come_and_go(session)) for session in sessions]
        await asyncio.gather(*joining)
        done.set()
    await publishing
    assert [version for _, version in versions] == sorted(version for _, version in versions)
    joins = [item for task in joining for item in task.result()]
    # Joining n times raised the version n times; the publish that came n joins later returned at least so much more.
    for position, _ in joins:
        earlier = sum(other <= position for other, _ in joins)
        later = [version for msg_id, version in versions if msg_id > position]
        assert all(version >= earlier for version in later)


BAD_ADDRESSES = [
    "", "10.0.0.1", "10.0.0.1:", "10.0.0.1:80", "10.0.0.1:1023", "10.0.0.1:65536", "10.0.0.1:99999", "10.0.0.1:123456",
    "10.0.0.256:40000", "10.0.0:40000", "10.0.0.1.2:40000", "10.0.0.1/8:40000", "fd00::1:40000", "[fd00::1]40000",
    "[fd00::1:40000", "[:::]:40000", "[fd00::1/64]:40000", "[fe80::1%eth0]:40000", "[10.0.0.1]:", "example.org:40000",
    "localhost:40000", "10.0.0.1:40000\n", "\n10.0.0.1:40000", "10.0.0.1:40000,10.0.0.2:40000", " 10.0.0.1:40000",
    "\u0661\u0660.0.0.1:40000", "ddd.d.d.d:dddd", "x" * 5000,
]  # fmt: skip
GOOD_ADDRESSES = [
    "10.0.0.1:1024",
    "255.1.2.3:65535",
    "[::1]:1024",
    "[fd00:1:2:3:4:5:6:7]:5353",
    "[::ffff:10.0.0.1]:4000",
]


async def test_addresses_are_checked(make_channel, join):
    channel = await make_channel()
    peer = await join(channel)
    for address in BAD_ADDRESSES:
        for call in (join(channel, peer.session, address=address), peer.wake_by(address)):
            with pytest.raises(asyncpg.InvalidParameterValueError) as caught:
                await call
            assert caught.value.message == "bus: address must look like 10.0.0.1:12345 or [fd00::1]:12345"
    for address in GOOD_ADDRESSES:
        await peer.wake_by(address)
        await join(channel, peer.session, address=address)


async def test_settings_of_a_session_do_not_change_what_an_address_is(make_channel, join):
    peer = await join(await make_channel())
    for setting in ("standard_conforming_strings = off", "backslash_quote = on", "escape_string_warning = off"):
        await peer.session.execute(f"set {setting}")
    for address in ("ddd.d.d.d:dddd", "10.0.0.1:80"):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await peer.wake_by(address)
    await peer.wake_by(HERE)


async def test_each_channel_has_a_key_of_its_own(make_channel, join, admin):
    one, two = await join(await make_channel()), await join(await make_channel())
    assert (await one.fetch_roster())["key"] != (await two.fetch_roster())["key"]
