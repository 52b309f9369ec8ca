"""The primary is gone, and its standby takes over."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import ClassVar, Literal

from chaos.evidence import NotStruckError
from chaos.layout import Layout
from chaos.nemeses.nemesis import Nemesis
from chaos.world import DURABILITIES, World

#: Seconds for which an asynchronous standby receives nothing before the primary goes.
_BEHIND = 1.0

#: Seconds by which what is measured here may be off.
_MARGIN = 0.5


class Failover(Nemesis):
    """To a standby that commits waited for: nothing is lost that was acknowledged and is logged."""

    name = "failover-synchronous"
    title = "failover to a synchronous standby; clients find it at the same address"
    touches = "server"
    layout = Layout(standby="synchronous")
    kind = "failover"
    standstill = 0.9
    clients: ClassVar[Literal["address", "binding"]] = "address"

    async def begin(self, world: World) -> None:
        """Kill the primary."""
        await asyncio.to_thread(world.server.kill)
        if self.clients == "binding":
            await world.link.refuse()

    async def end(self, world: World) -> None:
        """Promote the standby, and lead clients there."""
        assert world.standby is not None
        world.server, world.standby = world.standby, None
        session = await world.admin()
        if not await session.fetchval("select pg_promote()"):
            raise RuntimeError("the standby was not promoted")
        await session.close()
        world.service.target = world.server.port
        if self.clients == "binding":
            for durability in DURABILITIES:
                world.lead_to(durability, world.server.port)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """The server that answers was a standby."""
        session = await world.admin()
        # The first part of a name.
        timeline = int((await session.fetchval("select pg_walfile_name(pg_current_wal_insert_lsn())"))[:8], 16)
        await session.close()
        if timeline < 2:
            raise NotStruckError("the server is the one that there was")
        return f"timeline {timeline}; {await super().evidence(world, began, ended)}"


class FailoverByBinding(Failover):
    """Clients are told of another address."""

    name = "failover-binding"
    title = "failover to a synchronous standby; clients find it by a changed binding"
    # Nothing that stands before the server matters then: it is not combined with what breaks that.
    touches = "server link pooler"
    # It reads its binding once.
    with_pipecat = False
    clients = "binding"


class FailoverAsynchronous(Failover):
    """To a standby that is behind: what it was behind is lost."""

    name = "failover-asynchronous"
    title = "failover to an asynchronous standby, which was 1 s behind"
    layout = Layout(standby="asynchronous")

    async def begin(self, world: World) -> None:
        """Let it fall behind, and kill the primary."""
        assert world.standby is not None
        session = await world.standby.connect()
        receiver = await session.fetchval("select pid from pg_stat_activity where backend_type = 'walreceiver'")
        behind_since = time.monotonic()
        os.kill(receiver, signal.SIGSTOP)
        received = await session.fetchval("select pg_last_wal_receive_lsn()::text")
        await session.close()
        await asyncio.sleep(_BEHIND)
        session = await world.admin()
        self._behind = await session.fetchval("select pg_current_wal_flush_lsn() - $1::text::pg_lsn", received)
        session.terminate()
        await super().begin(world)
        lag = time.monotonic() - behind_since + _MARGIN
        os.kill(receiver, signal.SIGCONT)
        for each in world.fleets.values():
            each.promises(replication_lag=lag)

    async def evidence(self, world: World, began: int, ended: int) -> str:
        """There was something that the standby did not have."""
        if not self._behind:
            raise NotStruckError("the standby was not behind")
        return f"{self._behind} bytes of log lost; {await super().evidence(world, began, ended)}"
