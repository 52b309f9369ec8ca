"""Real workers on a real server: some are killed, so is the server, and the checker finds all promises kept."""

import asyncio
from pathlib import Path

import postgres
import pytest
from chaos.fleet import fleet
from chaos.promises import Durability, Promise


@pytest.mark.slow
@pytest.mark.parametrize(("version", "durability"), [(15, "Async"), (18, "Sync")])
async def test_killed_workers_and_a_killed_server(version: int, durability: Durability, tmp_path: Path) -> None:
    server = postgres.start_server(version)
    try:
        await asyncio.to_thread(postgres.create_template, server)
        await run(await postgres.create_database(server), durability, tmp_path)
    finally:
        server.remove()


async def run(database: postgres.Database, durability: Durability, tmp_path: Path) -> None:
    channel = await database.create_channel("shop.orders", durability=durability)
    bindings = channel.binding_dir(tmp_path / "bindings")
    async with fleet(tmp_path / "histories", Promise(durability)) as workers:
        publishers = [await workers.start(name, bindings, publish_rate=100) for name in ("p1", "p2")]
        await workers.start("ledger", bindings, peer="ledger")
        await workers.start("pipecat", bindings, client="pipecat")
        # Slow enough to have something in hand when it is killed.
        billing = await workers.start("billing", bindings, peer="billing", handle_seconds=0.005)

        await received(workers.directory / "billing.jsonl", 50)
        await workers.kill(billing)
        await received(publishers[0].options.history, 100)
        await workers.start("billing", bindings, peer="billing", handle_seconds=0.001)
        with workers.fault("crash"):
            await asyncio.to_thread(database.server.kill)
        await asyncio.to_thread(database.server.start)
        await received(workers.directory / "billing.2.jsonl", 250)

        verdict = await workers.settle()
    assert verdict, str(verdict)
    tally = verdict.tally
    assert tally.published > 250
    assert tally.received > 4 * 250
    assert tally.repeated > 0, "who is killed with messages in hand gets them again"


async def received(history: Path, count: int) -> None:
    """Wait until a process was handed so many messages."""
    async with asyncio.timeout(60):
        while history.read_bytes().count(b'"received"') < count:
            await asyncio.sleep(0.05)
