"""`busctl peers`, `top` and `rotate` on a database: who is there, what goes through, other credentials."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import busctl_program
import postgres
import pytest
import yaml
from wire import Peer

from bus_operator.peer_view import STALLED_SECONDS

# One version is enough: what the statements are about, other tests run on all.
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

Join = Callable[..., Awaitable[Peer]]


def busctl(
    database: postgres.Database, *arguments: str, code: int = 0, directory: Path | None = None
) -> tuple[str, str]:
    done = busctl_program.run(*arguments, directory=directory, BUSCTL_DATABASE=database.dsn)
    assert done.returncode == code, done.stdout + done.stderr
    assert database.server.password not in done.stdout + done.stderr
    return done.stdout, done.stderr


async def test_who_is_there_and_how_they_keep_up(database: postgres.Database, join: Join) -> None:
    channel = await database.create_channel("shop.orders")
    await database.create_channel("shop.audit")
    publisher = await join(channel, host="web-0", application="shop", runtime="pgmq-bus 0.1.0", address="10.0.0.7:9000")
    billing = await join(channel, peer="billing", host="billing-0", listens=True)
    away = await join(channel, peer="archive", host="archive-0")
    ended = await join(channel, host="search-0")
    foreign = await Peer.bus_join(billing.session, channel.name)
    await publisher.publish(1, 2, 3)
    await publisher.read(acknowledge=3)
    async with database.session() as session:
        # As if what takes long had taken long: nobody waits half a minute for a test.
        log = await session.fetchval("select 'pgmq.q_' || queue from pgmq_bus.channel where name = $1", channel.name)
        await session.execute(f"update {log} set enqueued_at = enqueued_at - make_interval(secs => {STALLED_SECONDS})")
        silent = "update pgmq_bus.peer set last_seen = last_seen - interval '2 hours' where queue = $1"
        await session.execute(silent, away.queue)
        most = "update pgmq_bus.peer set last_seen = last_seen - interval '5 minutes' where queue = $1"
        await session.execute(most, ended.queue)
        lossy = "update pgmq_bus.peer set lost = 7, redelivered = 2 where queue = $1"
        await session.execute(lossy, billing.queue)
        # What a rotation leaves: a newer login was published.
        await session.execute(
            "insert into pgmq_bus.login (role, channel_id, generation, verifier, published_at)"
            " select role || 'x', channel_id, 2, verifier, now() from pgmq_bus.login where role = $1",
            channel.username,
        )

    shown, said = busctl(database, "peers", "shop.orders")
    assert said == f"on database {database.name} on 127.0.0.1:{database.server.port}\n"
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["POD", "PEER", "STATE", "BEHIND", "WAKE", "LOGIN", "LAST", "SEEN", "REDELIVERED", "LOST"]
    rows = {line[0]: line[1:] for line in lines[1:]}
    assert rows["archive-0"][:2] == ["archive", "Away"]
    assert rows["search-0"][:3] == ["-", "Silent", "3"]
    assert rows["billing-0"][:3] == ["billing", "Stalled", "3"]
    assert rows["billing-0"][4:7] == ["listen", "1", "(retired)"]
    assert rows["billing-0"][-2:] == ["2", "7"]
    assert rows["web-0"][:4] == ["-", "Ok", "0", "doorbell"]
    assert rows["-"][:2] == ["-", "Stalled"]

    items = {item["pod"]: item for item in json.loads(busctl(database, "peers", "-o", "json")[0])["items"]}
    assert {key: items["web-0"][key] for key in ("channel", "application", "runtime", "wake", "behindMessages")} == {
        "channel": "shop.orders", "application": "shop", "runtime": "pgmq-bus 0.1.0", "wake": "doorbell",
        "behindMessages": 0,
    }  # fmt: skip
    assert (items[None]["runtime"], items[None]["credentialRetired"]) == ("pipecat", True)
    assert items["billing-0"]["behindSeconds"] > STALLED_SECONDS

    shown, _ = busctl(database, "peers", "--stalled", code=1)
    assert [line.split()[1] for line in shown.splitlines()] == ["POD", "billing-0", "-"]
    assert busctl(database, "peers", "shop.audit")[1].endswith("nobody has joined\n")
    assert busctl(database, "peers", "shop.audit", "--stalled")[1].endswith("there are no stalled peers\n")
    # Of a login that is only registered, status says what it thinks of it.
    assert "billing-0   billing   Stalled" in busctl(database, "status", "shop.orders", code=1)[0]
    details = json.loads(busctl(database, "status", "shop.orders", "-o", "json", code=1)[0])["peerDetails"]
    assert {item["pod"] for item in details} == {"web-0", "billing-0", "archive-0", "search-0", None}
    await foreign.bus_leave()


async def test_rates_between_two_looks(database: postgres.Database, join: Join) -> None:
    """By the real program while somebody publishes and one of two peers acknowledges."""
    import asyncio

    channel = await database.create_channel("shop.orders")
    await database.create_channel("shop.idle")
    publisher, reader, slow = [await join(channel) for _ in range(3)]

    async def traffic() -> None:
        while True:
            (*_, last) = await publisher.publish(1, 2, 3, 4)
            for peer in (publisher, reader):
                await peer.read(acknowledge=last)
            await asyncio.sleep(0.01)

    busy = asyncio.create_task(traffic())
    try:
        arguments = ("top", "--interval", "1", "-o", "json")
        shown, said = await asyncio.to_thread(busctl, database, *arguments)
    finally:
        busy.cancel()
        await asyncio.wait([busy])
    assert said.startswith("on database ")
    data = json.loads(shown)
    first, idle = data["items"]
    assert (data["intervalSeconds"], first["channel"], first["peers"]) == (1, "shop.orders", 3)
    assert first["publishedPerSecond"] > 0
    # Two of three peers acknowledge what is published; the looks fall between a publish and its acknowledgements.
    assert first["deliveredPerSecond"] == pytest.approx(2 * first["publishedPerSecond"], rel=0.5, abs=20)
    assert first["backlog"] > 0
    assert first["oldestMessageSeconds"] > 0
    assert (idle["channel"], idle["publishedPerSecond"], idle["oldestMessageSeconds"]) == ("shop.idle", 0, None)

    # Without a terminal it is a table of one interval.
    shown, _ = await asyncio.to_thread(busctl, database, "top", "shop.orders", "--interval", "0.1")
    assert [line.split()[0] for line in shown.splitlines()] == ["CHANNEL", "test/test"]
    assert slow.queue not in shown


async def test_live_screens(database: postgres.Database, join: Join) -> None:
    """In a terminal of twelve lines: a line about all, as many channels as fit, refreshed; Ctrl-C is no failure."""
    await join(await database.create_channel("shop.busy"))
    for number in range(12):
        await database.create_channel(f"shop.idle-{number:02}")
    ended, shown = busctl_program.watch("top", "--interval", "0.1", until="more", BUSCTL_DATABASE=database.dsn)
    assert ended == 0
    assert "13 channels, 0 published/s, 0 delivered/s" in shown
    ended, shown = busctl_program.watch("status", "-w", until="more", BUSCTL_DATABASE=database.dsn)
    assert ended == 0
    assert "13 channels, 0 not ready" in shown
    # Colours in a terminal, and none where they are not wanted.
    assert "\x1b[32mTrue" in shown
    _, plain = busctl_program.watch("status", "-w", until="more", BUSCTL_DATABASE=database.dsn, NO_COLOR="1")
    assert "\x1b[32m" not in plain


async def test_rotation_of_what_busctl_has_made(database: postgres.Database, tmp_path: Path) -> None:
    metadata = {"name": "orders", "namespace": "shop"}
    manifest = {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "metadata": metadata}
    reader = {"spec": {"reader": {"batchSize": 50}, "retention": {"maxMessages": 9}}}
    (tmp_path / "channels.yaml").write_text(yaml.safe_dump(manifest | reader))
    busctl(database, "apply", "-f", "channels.yaml", "--bindings", "bindings", directory=tmp_path)
    before = _read(tmp_path)

    rotate = ("rotate", "shop/orders", "--bindings", "bindings")
    shown, _ = busctl(database, *rotate, directory=tmp_path)
    assert shown == "shop.orders: issue credential generation 2\nwrote bindings/orders\n"
    after = _read(tmp_path)
    assert {key for key in after if after[key] != before[key]} == {"username", "password", "uri", "generation"}
    assert after["generation"] == "2"
    for binding in (before, after):
        session = await asyncpg.connect(binding["uri"])
        await session.close()
    async with database.session() as session:
        assert await session.fetchval("select max_messages from pgmq_bus.channel") == 9
    # Applying again finds nothing to do: the binding is the channel's.
    shown, _ = busctl(database, "apply", "-f", "channels.yaml", "--bindings", "bindings", directory=tmp_path)
    assert "issue" not in shown

    _, said = busctl(database, *rotate, code=1, directory=tmp_path)
    assert "error: a rotation is under way: the next can begin when nobody uses the credentials of before" in said
    _, said = busctl(database, "rotate", "shop/orders", "--bindings", "elsewhere", code=1, directory=tmp_path)
    assert said.endswith(
        "there is no binding in elsewhere/orders: busctl apply --bindings elsewhere writes one [InvalidSpec]\n"
    )
    assert "--database needs --bindings" in busctl(database, "rotate", "shop/orders", code=2)[1]
    await database.create_channel("shop.audit")
    _, said = busctl(database, "rotate", "shop.audit", "--bindings", "bindings", code=1, directory=tmp_path)
    assert "busctl apply has not made this channel" in said


async def test_programs_are_told_of_a_rotation(database: postgres.Database, tmp_path: Path) -> None:
    metadata = {"name": "orders", "namespace": "shop"}
    manifest = {"apiVersion": "pgmqbus.dev/v1alpha1", "kind": "BusChannel", "metadata": metadata}
    (tmp_path / "channels.yaml").write_text(yaml.safe_dump(manifest))
    busctl(database, "apply", "-f", "channels.yaml", "--bindings", "bindings", directory=tmp_path)
    rotate = ("rotate", "shop/orders", "--bindings", "bindings", "-o")
    shown, _ = busctl(database, *rotate, "json", directory=tmp_path)
    rotated = {
        "namespace": "shop",
        "name": "orders",
        "channel": "shop.orders",
        "request": None,
        "replaced": True,
        "previousGeneration": 1,
        "credentialGeneration": 2,
        "binding": "bindings/orders",
    }
    assert json.loads(shown) == rotated
    shown, said = busctl(database, *rotate, "yaml", code=1, directory=tmp_path)
    assert yaml.safe_load(shown) == rotated | {"replaced": False, "previousGeneration": 2, "binding": None}
    assert said.endswith(" [Rotating]\n")


def _read(directory: Path) -> dict[str, Any]:
    return {path.name: path.read_text() for path in (directory / "bindings" / "orders").iterdir()}
