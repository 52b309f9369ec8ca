"""A channel as it is on the wire, for tools: JSON with its ids, which nobody decodes.

    wire = Wire(IsolatedPgmqBackend.from_binding("orders"), "shop.orders", application="busctl tail", receive=show)
    await wire.start()

It is a peer of its own without a durable name, so no other peer's position is concerned. What it receives is
acknowledged at once, so that it never keeps the log from being trimmed, however slow the one is who looks at it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

from bus_runtime._version import __version__
from bus_runtime.backend import JoinOptions, LogBackend
from bus_runtime.callbacks import Callbacks, OnLost, Teller
from bus_runtime.errors import BackendError
from bus_runtime.flow import Limits
from bus_runtime.lagging import LogFlow
from bus_runtime.link import LogLink
from bus_runtime.reader import ReaderSettings
from bus_runtime.stats import Counters

#: Takes a message's id and JSON. Must not block.
Take = Callable[[int, bytes], None]

#: Seconds for the call that is under way when it stops, and again for what waits to be sent.
_PATIENCE = 5.0


class Wire:
    """One peer that publishes and receives JSON as it is.

    Args:
        backend: The log.
        channel: Wire name of the channel.
        application: What this program calls itself in the channel's status.
        receive: Called with each message that is published from `start` on, in the order of the log.
        on_lost: Called with the number of messages that were trimmed before they could be read.
        settings: How to read.
        join_timeout: Seconds that `start` tries to reach the server.
        publish_timeout: Seconds that `publish` tries again while the server certainly did not take the message.
    """

    def __init__(
        self,
        backend: LogBackend,
        channel: str,
        *,
        application: str,
        receive: Take | None = None,
        on_lost: OnLost | None = None,
        settings: ReaderSettings | None = None,
        join_timeout: float = 30.0,
        publish_timeout: float = 30.0,
    ) -> None:
        self._take = receive
        self._link = LogLink(
            backend,
            channel,
            JoinOptions(application=application, host=os.environ.get("HOSTNAME"), runtime=f"bus_runtime/{__version__}"),
            settings or ReaderSettings(),
            join_timeout=join_timeout,
            publish_timeout=publish_timeout,
            receive=self._receive,
            # Nothing is held, so nothing is ever behind.
            flow=LogFlow(
                Limits(),
                decode=lambda _: None,
                acknowledge_on_dispatch=True,
                on_lost=lambda _: None,
                on_lagging=lambda *_: None,
            ),
            teller=Teller(f"channel {channel!r}", Callbacks(on_lost=on_lost), lambda: None),
            counters=Counters(),
        )

    async def start(self) -> None:
        """Join the channel and begin to receive.

        Raises:
            BackendError: The server refused, or stayed out of reach for `join_timeout`.
        """
        await self._link.start()

    async def publish(self, payload: bytes) -> int:
        """Append one JSON message to the log; its id, once the server has committed it.

        Raises:
            BackendError: It was not published; for `ConnectionLostError` that is not known.
            PublishError: `stop` was called meanwhile.
        """
        return await self._link.publish(payload)

    async def stop(self, *, last_look: float = 0.0) -> None:
        """Leave the channel. Never raises because leaving failed.

        Args:
            last_look: Seconds at most to read what is published already and was not received yet; 0 leaves that out.
        """
        await self._link.drain(_PATIENCE)
        try:
            if last_look > 0:
                await self._look(last_look)
        finally:
            await self._link.close(_PATIENCE)

    async def _look(self, seconds: float) -> None:
        # A server that is gone has nothing to tell, and publishers may go on for ever.
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(seconds):
                async for record in self._link.rest():
                    if record.payload is not None and self._take is not None:
                        self._take(record.msg_id, record.payload)

    def _receive(self, msg_id: int, payload: bytes, handled: Callable[[], None]) -> None:
        handled()
        if self._take is not None:
            self._take(msg_id, payload)
