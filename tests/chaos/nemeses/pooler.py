"""PgBouncer between clients and the server."""

from __future__ import annotations

import asyncio
import signal

from chaos.layout import Layout
from chaos.nemeses.nemesis import Nemesis
from chaos.world import World


class SessionPoolerRestarted(Nemesis):
    """With a session for each client."""

    name = "pooler-session-restarted"
    title = "PgBouncer killed and started again, session mode"
    touches = "pooler"
    layout = Layout(pooler="session")
    standstill = 0.9

    async def begin(self, world: World) -> None:
        """Kill it."""
        assert world.pooler is not None
        await asyncio.to_thread(world.pooler.stop, signal.SIGKILL)

    async def end(self, world: World) -> None:
        """Start it."""
        assert world.pooler is not None
        await asyncio.to_thread(world.pooler.start)


class TransactionPoolerRestarted(SessionPoolerRestarted):
    """With sessions that are handed around between transactions."""

    name = "pooler-transaction-restarted"
    title = "PgBouncer killed and started again, transaction mode"
    layout = Layout(pooler="transaction")
    # Its pool prepares statements by name.
    with_pipecat = False
