"""This peer's place on a channel: joining with patience, and joining anew when the server dropped it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from bus_runtime.backend import JoinOptions, LogBackend, Membership
from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.errors import BackendError, PeerRefusedError

logger = logging.getLogger(__name__)


class Session:
    """The current `Membership`, shared by whoever reads and publishes with it.

    Args:
        backend: Where to join.
        channel: Wire name of the channel.
        options: What this peer says about itself; a `peer` name makes it durable.
    """

    def __init__(self, backend: LogBackend, channel: str, options: JoinOptions) -> None:
        self.channel = channel
        self.options = options
        self._backend = backend
        self._membership: Membership | None = None
        self._renewing = asyncio.Lock()
        #: Called when there is another membership: nobody wakes the former one any more.
        self.on_renewed: Callable[[], None] | None = None

    @property
    def membership(self) -> Membership:
        """The current membership; valid after `join`."""
        if self._membership is None:
            raise RuntimeError("join() comes first")
        return self._membership

    async def join(self, seconds: float) -> Membership:
        """Join, trying again for at most `seconds` while the server cannot be reached.

        Raises:
            BackendError: The server refused, or was out of reach until the time was up.
        """
        deadline = time.monotonic() + seconds
        backoff = Backoff()
        outage = OutageLog(logger, f"joining channel {self.channel!r}")
        while True:
            try:
                self._membership = await self._backend.join_channel(self.channel, self.options)
            except BackendError as exc:
                delay = backoff.next_delay()
                if not exc.retryable or time.monotonic() + delay >= deadline:
                    raise
                outage.failed(exc)
                await asyncio.sleep(delay)
            else:
                outage.recovered()
                return self._membership

    async def renew(self, refused: Membership) -> Membership:
        """A membership to go on with after the server refused `refused`.

        Readers and publishers may both find out; the first one joins anew, the others get its result.

        Raises:
            PeerRefusedError: The peer is durable: its place belongs to whoever joined last, so it is not fought over.
            BackendError: Joining anew failed.
        """
        async with self._renewing:
            if self.membership is not refused:
                return self.membership
            if self.options.peer is not None:
                raise PeerRefusedError(
                    "another process joined under the same name, or the credentials were revoked",
                    sqlstate="42501",
                )
            self._membership = await self._backend.join_channel(self.channel, self.options)
            if self.on_renewed is not None:
                self.on_renewed()
            await self._backend.leave_channel(self.channel, refused.queue, forget=False)
            return self._membership
