"""`python -m bus_runtime.doctor`: each thing that can be wrong in a pod, with the real thing, and its code."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from black_hole import black_hole
from pgbouncer import pgbouncer
from postgres import Channel, Database, Server, free_port

from bus_runtime import PgmqBus, doctor
from bus_runtime.address import ADDRESS_VARIABLE
from bus_runtime.doctor import Step, examine

TITLES = ["binding", "host name", "route", "login", "pooler", "channel", "doorbell"]


async def diagnose(root: Path, failing: str, code: str) -> Step:
    """What the step says that fails; those before it are well, those after it are not looked at."""
    steps = await examine(root=root)
    assert [step.title for step in steps] == TITLES
    at = TITLES.index(failing)
    assert {step.state for step in steps[:at]} <= {"ok", "advice"}
    assert {step.state for step in steps[at + 1 :]} <= {"skipped"}
    assert (steps[at].state, steps[at].code) == ("failed", code)
    return steps[at]


def lead_to(root: Path, channel: Channel, address: str) -> None:
    """Makes the binding lead elsewhere."""
    uri = channel.uri.replace(f"127.0.0.1:{channel.endpoint.port}", address)
    assert uri != channel.uri
    (root / "orders" / "uri").write_text(uri)


async def test_all_is_well_and_nobody_notices(bindings: Path, database: Database) -> None:
    steps = await examine(root=bindings)
    assert [(step.title, step.state) for step in steps] == [(title, "ok") for title in TITLES]
    assert "'shop.orders'" in steps[0].message
    assert "heard at 127.0.0.1" in steps[-1].message
    async with database.session() as session:
        assert await session.fetchval("select count(*) from pgmq_bus.peer") == 0


async def test_no_binding(tmp_path: Path) -> None:
    step = await diagnose(tmp_path, "binding", "BindingNotFound")
    assert "pgmqbus.dev/inject" in step.message


async def test_a_host_that_nobody_knows(bindings: Path, channel: Channel) -> None:
    lead_to(bindings, channel, "no-such-host.invalid:5432")
    await diagnose(bindings, "host name", "HostNotFound")


async def test_a_port_that_is_in_the_query(bindings: Path, channel: Channel) -> None:
    """As of a socket, or written by hand; nobody is asked at PostgreSQL's usual port."""
    lead_to(bindings, channel, "127.0.0.1")
    path = bindings / "orders" / "uri"
    path.write_text(f"{path.read_text()}&port={channel.endpoint.port}")
    steps = {step.title: step for step in await examine(root=bindings)}
    assert f"port {channel.endpoint.port} answers" in steps["route"].message
    assert steps["channel"].state == "ok"


async def test_a_uri_that_cannot_be_read(bindings: Path, channel: Channel) -> None:
    lead_to(bindings, channel, "127.0.0.1:none")
    step = await diagnose(bindings, "login", "BindingInvalid")
    assert "the uri of binding 'orders' cannot be used" in step.message


async def test_a_server_that_is_down(bindings: Path, channel: Channel) -> None:
    lead_to(bindings, channel, f"127.0.0.1:{free_port()}")
    await diagnose(bindings, "route", "ConnectionFailed")


async def test_packets_that_get_lost(bindings: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROUTE_TIMEOUT", 0.5)
    with black_hole() as port:
        lead_to(bindings, channel, f"127.0.0.1:{port}")
        step = await diagnose(bindings, "route", "NoRoute")
    assert "NetworkPolicy" in step.message


async def test_a_credential_that_was_retired(bindings: Path, channel: Channel, database: Database) -> None:
    async with database.session() as session:
        await session.execute(f"alter role {channel.username} password 'another'")
    step = await diagnose(bindings, "login", "AuthenticationFailed")
    assert "kubectl describe buschannel orders" in step.message
    assert channel.password not in step.message


async def test_no_connection_left(bindings: Path, channel: Channel, database: Database) -> None:
    async with database.session() as session:
        await session.execute(f"alter role {channel.username} connection limit 0")
    step = await diagnose(bindings, "login", "ConnectionsExhausted")
    assert "limits.maxConnections" in step.message


async def test_another_channels_binding(bindings: Path) -> None:
    (bindings / "orders" / "channel").write_text("shop.audit")
    await diagnose(bindings, "channel", "ChannelAccessDenied")


async def test_a_channel_that_is_full(database: Database, tmp_path: Path) -> None:
    channel = await database.create_channel("full", limits={"maxPeers": 1})
    root = channel.binding_dir(tmp_path / "full")
    bus = PgmqBus.from_binding(root=root)
    await bus.start()
    await diagnose(root, "channel", "TooManyPeers")
    await bus.stop()


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_and_its_mode(server: Server, bindings: Path, channel: Channel, mode: str) -> None:
    with pgbouncer(server, mode, pool_size=5) as pooler:
        pooler.redirect(bindings, channel)
        steps = {step.title: step for step in await examine(root=bindings)}
    expected = ("advice", "PoolerInTransactionMode") if mode == "transaction" else ("ok", None)
    assert (steps["pooler"].state, steps["pooler"].code) == expected
    assert steps["channel"].state == "ok"


async def test_an_address_at_which_nobody_hears(bindings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A documentation address: what is sent there is lost."""
    monkeypatch.setenv(ADDRESS_VARIABLE, "192.0.2.1")
    monkeypatch.setattr(doctor, "RING_TIMEOUT", 0.2)
    steps = await examine(root=bindings)
    assert (steps[-1].state, steps[-1].code) == ("advice", "DoorbellUnheard")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bus_runtime.doctor", *arguments],
        env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


async def test_as_a_program(bindings: Path) -> None:
    done = await asyncio.to_thread(run, SERVICE_BINDING_ROOT=str(bindings))
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[:11] for line in done.stdout.splitlines()] == [f"✓ {title:9}" for title in TITLES]
    done = await asyncio.to_thread(run, "audit", "--root", str(bindings), "-o", "json")
    steps: list[dict[str, Any]] = json.loads(done.stdout)["steps"]
    assert done.returncode == 1
    assert (steps[0]["state"], steps[0]["code"], steps[1]["state"]) == ("failed", "BindingNotFound", "skipped")
    done = await asyncio.to_thread(run, "--no-such-option")
    assert done.returncode == 2
