"""`busctl tail` and `busctl publish` as users run them, on a real channel, by a binding or an administrator's URI."""

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import postgres
import pytest
from busctl_run import BUSCTL, busctl_run
from recorder import eventually

from bus_operator.cli.dev.message_log import MessageLog
from bus_runtime import BusMessage, BusSubscriber, PgmqBus

# One version is enough: the functions that are called are tested on all.
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])


def run(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "BUSCTL_DATABASE")}
    return subprocess.run(
        [BUSCTL, *arguments],
        input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, env=inherited | environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def parsed(lines: list[str]) -> list[Any]:
    return [json.loads(line) for line in lines if line.startswith("{")]


async def test_messages_that_pass(database: postgres.Database, tmp_path: Path) -> None:
    """They are shown as they come; nobody's position is concerned, and who looked on is gone afterwards."""
    channel = await database.create_channel("shop.orders")
    root = channel.binding_dir(tmp_path)
    bus = PgmqBus.from_binding("orders", root=root, peer="billing")
    await bus.start()
    await bus.stop()
    tail = ("tail", "orders", "--binding", str(root), "--json", "--type", "Bus*Message", "--grep", "enough|more")
    with busctl_run(tmp_path, *tail) as following:
        following.until("following shop.orders")
        async with database.session() as session:
            (peer,) = await session.fetch("select * from pgmq_bus.peer where name is null")
            assert (peer["application"], peer["login"]) == ("busctl tail", channel.username)
        published = run(
            "publish", "orders", "--binding", str(root / "orders"), "--type", "BusEndMessage", "--target", "runner",
            '{"reason": "enough"}',
        )  # fmt: skip
        assert (published.returncode, published.stdout) == (0, "1\n"), published.stderr
        following.until('"reason":"enough"')
        assert run("publish", "orders", "--raw", "[1]", SERVICE_BINDING_ROOT=str(root)).stdout == "2\n"
        lines = (
            '{"reason": "more"}\n\n{"__type__": "shop.OrderPlaced", "__data__": {"order": "A-1"}}\n{"reason": "less"}\n'
        )
        arguments = ("publish", "shop.orders", "--database", database.dsn, "--type", "BusEndMessage", "-")
        assert run(*arguments, stdin=lines).stdout == "3\n4\n5\n"
        following.until('"reason":"more"')
        following.signal(signal.SIGINT)
        assert following.wait() == 130
    shown = parsed(following.lines)
    assert [(line["id"], line["source"], line["target"]) for line in shown] == [
        (1, "busctl", "runner"), (3, "busctl", None),
    ]  # fmt: skip
    assert shown[0]["channel"] == "shop.orders"
    assert shown[0]["type"] == "pipecat.bus.messages.BusEndMessage"
    assert shown[0]["message"]["__data__"] == {
        "id": 0, "name": "BusEndMessage#0", "source": "busctl", "target": "runner", "reason": "enough",
    }  # fmt: skip
    assert "2 messages were shown" in following.output
    assert following.lines[0] == f"on binding {root}"
    assert channel.password not in following.output
    async with database.session() as session:
        assert [row["acknowledged"] for row in await session.fetch("select * from pgmq_bus.peer")] == [0]

    received: list[BusMessage] = []

    class Billing(BusSubscriber):
        name = "billing"

        async def on_bus_message(self, message: BusMessage) -> None:
            received.append(message)

    bus = PgmqBus.from_binding("orders", root=root, peer="billing")
    await bus.subscribe(Billing())
    await bus.start()
    await eventually(lambda: bus.stats().handled == 5, seconds=30)
    await bus.stop()
    assert [getattr(message, "reason", None) for message in received] == ["enough", "more", "less"]


async def test_the_log_of_dev_shows_the_last_word(database: postgres.Database, tmp_path: Path) -> None:
    """What was published right before the end, of which nothing has come here yet."""
    channel = await database.create_channel("orders")
    root = channel.binding_dir(tmp_path)
    shown: list[tuple[str, int]] = []
    told: list[str] = []
    log = MessageLog(root, lambda name, message: shown.append((name, message.id)), told.append)
    await log.follow(["orders"])
    # This blocks the loop: nothing is received meanwhile.
    published = run("publish", "orders", "--binding", str(root), "-q", "--count", "250", "--raw", '"the last word"')
    assert published.returncode == 0, published.stderr
    assert shown == []
    await log.stop()
    assert shown == [("orders", number) for number in range(1, 251)]
    assert told == []
    async with database.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.peer") == 0


async def test_a_reader_that_is_slow(database: postgres.Database, tmp_path: Path) -> None:
    """What tail received is acknowledged, although nobody takes what it would show; how much is missing is told."""
    channel = await database.create_channel("orders")
    root = channel.binding_dir(tmp_path)
    following = subprocess.Popen(
        [BUSCTL, "tail", "--binding", root / "orders", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert following.stderr is not None
    while "following" not in following.stderr.readline():
        pass
    lines = f'"{"x" * 500_000}"\n' * 50
    published = run("publish", "orders", "--binding", str(root), "--raw", "--count", "40", "-q", stdin=lines)
    assert (published.returncode, published.stdout) == (0, ""), published.stderr
    assert published.stderr.splitlines()[-1].startswith("40 published in ")
    async with database.session() as session:
        deadline = time.monotonic() + 30
        while [row["acknowledged"] for row in await session.fetch("select * from pgmq_bus.peer")] != [40]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    following.send_signal(signal.SIGTERM)
    shown, said = following.communicate(timeout=30)
    assert following.returncode == 128 + signal.SIGTERM
    count = len(shown.splitlines())
    assert 10 <= count < 40
    assert f"{count} messages were shown\n{40 - count} more were not" in said


async def test_a_reader_that_goes(database: postgres.Database, tmp_path: Path) -> None:
    """`busctl tail | head -1` ends, and leaves the channel."""
    channel = await database.create_channel("orders")
    root = channel.binding_dir(tmp_path)
    shell = f"{BUSCTL} tail --binding {root}/orders | head -1"
    piped = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert piped.stderr is not None
    while "following" not in piped.stderr.readline():
        pass
    assert run("publish", "orders", "--binding", str(root), "--count", "1", "{}").returncode == 0
    deadline = time.monotonic() + 30
    while piped.poll() is None:
        assert time.monotonic() < deadline
        run("publish", "orders", "--binding", str(root), "--raw", "--count", "5", "--rate", "50", '"x"')
    shown, said = piped.communicate(timeout=30)
    assert shown.split()[1:] == ["#1", "BusDataMessage", "busctl", "→", "all", "{}"]
    assert (piped.returncode, "Traceback" in said) == (0, False), said
    async with database.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.peer") == 0


async def test_what_is_refused(database: postgres.Database, tmp_path: Path) -> None:
    """Exit status 1 and a text that ends with the code, 2 for wrong usage; what came before was published."""
    channel = await database.create_channel("orders", limits={"maxMessageBytes": 1024, "maxPeers": 1})
    root = channel.binding_dir(tmp_path)
    bound = ("--binding", str(root))
    lines = f'{{"n": 1}}\n{{"n": "{"x" * 2000}"}}\n'
    done = run("publish", "orders", *bound, "--raw", stdin=lines)
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert done.stderr.splitlines()[-1].endswith("[MessageTooLarge]")
    assert "1 published in" in done.stderr
    done = run("publish", "orders", *bound, stdin='{"n": 1}\n{oops\n')
    assert (done.returncode, "message 2: '{oops' is no JSON" in done.stderr) == (1, True)
    assert "BusDataMessage has no field n" in done.stderr
    started = time.monotonic()
    done = run("publish", "orders", *bound, "--raw", "--count", "6", "--rate", "10", "1")
    assert (done.returncode, len(done.stdout.split())) == (0, 6)
    assert time.monotonic() - started > 0.5
    bus = PgmqBus.from_binding("orders", root=root)
    await bus.start()
    done = run("tail", "orders", *bound)
    assert (done.returncode, done.stderr.splitlines()[-1][-14:]) == (1, "[TooManyPeers]")
    await bus.stop()
    for arguments, code, message in (
        (("tail", "audit", *bound), 1, "has no binding 'audit'"),
        (("tail", "audit", "--binding", str(root / "orders")), 1, "is of channel 'orders', not 'audit'"),
        (("tail", "--database", database.dsn), 2, "name a CHANNEL"),
        (("tail", "audit", "--database", database.dsn), 1, "holds no channel 'audit'"),
        (("tail", "orders", *bound, "--database", database.dsn), 2, "--binding says where"),
        (("tail", "orders", *bound, "--grep", "("), 2, "is no regular expression"),
        (("publish", "orders", *bound, "--raw", "--target", "x", "1"), 2, "--raw leaves JSON as it is"),
        (("publish", "orders", *bound, "[1]"), 1, "--raw takes any JSON"),
    ):
        done = run(*arguments)
        assert (done.returncode, message in done.stderr, done.stdout) == (code, True, ""), (arguments, done.stderr)
        assert database.server.password not in done.stderr


async def test_an_unreachable_server(database: postgres.Database, tmp_path: Path) -> None:
    channel = await database.create_channel("orders")
    directory = channel.binding_dir(tmp_path) / "orders"
    (directory / "uri").write_text(channel.uri.replace(f":{channel.endpoint.port}", f":{postgres.free_port()}"))
    done = run("publish", "orders", "--binding", str(tmp_path), "{}")
    assert done.returncode == 1
    assert "[ConnectionFailed]" in done.stderr
    assert channel.password not in done.stderr
