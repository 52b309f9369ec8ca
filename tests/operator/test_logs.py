"""The log of the real operator: a line for each thing done, with fields to search by, and none for nothing."""

import asyncio
import json
from typing import Any

from control_plane import wait_until
from operator_process import Operator
from operator_world import Namespace, World
from scraping import value


def lines_about(operator: Operator, namespace: Namespace) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in operator.log.splitlines() if namespace.name in line]
    return [line for line in lines if line["level"] != "debug"]


async def test_a_line_for_each_thing_done(world: World, namespace: Namespace) -> None:
    operator = world.operator
    database = await world.postgres()
    namespace.database(database.dsn)
    channel = namespace.channel()
    await asyncio.to_thread(channel.wait_ready)
    wait_until(lambda: any(line.get("reason") == "Ready" for line in lines_about(operator, namespace)), "it says so")
    of = {"kind": "BusChannel", "namespace": namespace.name, "name": "orders"}
    about = [line for line in lines_about(operator, namespace) if line.items() >= of.items()]
    (made,) = (line for line in about if "create channel" in line["msg"])
    assert made["logger"] == "bus_operator.channel_reconciler"
    (ready,) = (line for line in about if line.get("reason") == "Ready")
    assert ready["level"] == "info"


async def test_looking_again_and_finding_nothing_is_not_logged(world: World, namespace: Namespace) -> None:
    operator = world.operator
    database = await world.postgres()
    namespace.database(database.dsn)
    await asyncio.to_thread(namespace.channel().wait_ready)

    def looks() -> float:
        return value(operator, "pgmq_bus_reconciles_total", kind="BusDatabase", outcome="done") or 0

    def looked_again() -> bool:
        # Until it has come to rest: what follows from the creation is done.
        before, begun = len(lines_about(operator, namespace)), looks()
        wait_until(lambda: looks() >= begun + 3, "the databases were looked at again")
        return len(lines_about(operator, namespace)) == before

    assert await asyncio.to_thread(wait_until, looked_again, "nothing is logged", 90)
