"""This peer's place on a channel: joining with patience, and joining anew when the server does not know it any more.

It may have been silent for too long; or its joining got lost, in a failover to a standby that was behind. A durable
peer that joins anew claims its place by when it joined first: the server gives it unless another process joined later.
So whoever joined last has it in the end, and a process whose claim was refused never tries again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from bus_runtime.backend import JoinOptions, LogBackend, Membership
from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.errors import AccessDeniedError, BackendError, PeerRefusedError

logger = logging.getLogger(__name__)

_REFUSED = (
    "another process joined under the same name, or the credentials were revoked: stop one of the two processes,"
    " or give each a peer name of its own"
)


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
        self._refusal: PeerRefusedError | None = None
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
            PeerRefusedError: The peer is durable, and its place is another process's, or its credentials were revoked.
                That is final.
            BackendError: Joining anew failed.
        """
        async with self._renewing:
            self.require_place()
            if self.membership is not refused:
                return self.membership
            try:
                membership = await self._join_anew(refused)
            except PeerRefusedError as exc:
                self._refusal = exc
                raise
            self._membership = membership
            if self.on_renewed is not None:
                self.on_renewed()
            await self._backend.leave_channel(self.channel, refused.queue, forget=False)
            return membership

    def require_place(self) -> None:
        """Check that the place of this peer is not another process's for good.

        Raises:
            PeerRefusedError: It is.
        """
        if self._refusal is not None:
            raise PeerRefusedError(self._refusal.message, sqlstate=self._refusal.sqlstate)

    async def _join_anew(self, refused: Membership) -> Membership:
        if self.options.peer is None:
            return await self._backend.join_channel(self.channel, self.options)
        if refused.since is None:
            # The server does not tell who joined last, and the place is not fought over.
            raise PeerRefusedError(_REFUSED, sqlstate="42501")
        try:
            return await self._backend.join_channel(self.channel, replace(self.options, since=refused.since))
        except PeerRefusedError:
            raise
        except AccessDeniedError as exc:
            raise PeerRefusedError(_REFUSED, sqlstate=exc.sqlstate) from exc
