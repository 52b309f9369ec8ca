"""Publishes messages to a channel, one after the other, as fast as it takes them or at a rate."""

import asyncio
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field

from bus_runtime import Binding, IsolatedPgmqBackend
from bus_runtime.wire import Wire

APPLICATION = "busctl publish"

_PATIENCE = 10.0
"""Seconds until a server that does not answer counts as unreachable."""

_UNDER_WAY = 500
"""Messages that are sent before the first one's id is awaited: those that wait share a transaction."""


@dataclass
class Publication:
    """Publishes to one channel.

    Args:
        binding: With which credentials.
        rate: Messages a second at most; None: as fast as they are taken.
        published: Called with each message's id, in order.
    """

    binding: Binding
    rate: float | None
    published: Callable[[int], None]
    count: int = field(default=0, init=False)
    """How many were published."""

    async def run(self, payloads: AsyncIterable[bytes]) -> None:
        """Publishes them all, and leaves the channel. The first one that fails ends it; some after it may be published.

        Raises:
            BackendError: That one was not published; for `ConnectionLostError` that is not known. Those before it were.
        """
        backend = IsolatedPgmqBackend(binding=self.binding)
        wire = Wire(backend, self.binding.channel, application=APPLICATION, join_timeout=_PATIENCE)
        under_way: asyncio.Queue[asyncio.Task[int] | None] = asyncio.Queue(_UNDER_WAY)
        try:
            await wire.start()
            sending = asyncio.create_task(self._send(wire, payloads, under_way))
            try:
                await self._tell(under_way)
                await sending
            finally:
                rest = [under_way.get_nowait() for _ in range(under_way.qsize())]
                tasks = [sending, *(sent for sent in rest if sent is not None)]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await wire.stop()
            await backend.close()

    async def _send(
        self, wire: Wire, payloads: AsyncIterable[bytes], under_way: asyncio.Queue[asyncio.Task[int] | None]
    ) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            async for payload in payloads:
                if self.rate is not None:
                    await asyncio.sleep(max(due - loop.time(), 0))
                    # By the clock, so that what a call took longer is made up for, but no burst after a long pause.
                    due = max(due + 1 / self.rate, loop.time() - 1)
                await under_way.put(asyncio.create_task(wire.publish(payload)))
                # Lets the call begin, so that messages leave in this order.
                await asyncio.sleep(0)
        except Exception:
            # What came before is published and told nevertheless.
            await under_way.put(None)
            raise
        await under_way.put(None)

    async def _tell(self, under_way: asyncio.Queue[asyncio.Task[int] | None]) -> None:
        while (task := await under_way.get()) is not None:
            msg_id = await task
            self.count += 1
            self.published(msg_id)
