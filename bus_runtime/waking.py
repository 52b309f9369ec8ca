"""How one membership learns of new messages: by doorbell, by LISTEN, or by polling, as the circumstances allow.

Doorbells come first, where there is one. When they prove not to arrive, the server is told to have this peer notified
as well, until they have proven the contrary. Peers that speak the reference client's protocol ring nobody: one peer of
the channel, which the server chooses, listens for their notifications besides, and rings the others. Whatever of this
does not work, the reader's own looking at the log makes up for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from bus_runtime.backend import Offer, Wake
from bus_runtime.backoff import Backoff
from bus_runtime.connection import Database
from bus_runtime.doorbell import Doorbell
from bus_runtime.errors import AccessDeniedError, BackendError
from bus_runtime.listen import Listener
from bus_runtime.trust import DoorbellTrust

logger = logging.getLogger(__name__)

#: Seconds for which a way of waking must have lasted to be worth a line in the log: beginning to listen takes a moment.
_SETTLING = 1.0

#: Seconds for which a notification means that there may be peers that ring nobody: the roster tells, but later.
_RELAYING = 5.0


class PollWaker:
    """Never wakes: the reader polls."""

    mode = "poll"
    audience = 1

    async def start(self, wake: Wake, offer: Offer) -> None:
        """Nothing to do."""

    def overlooked(self) -> None:
        """Nothing else to try."""

    async def close(self) -> None:
        """Nothing to do."""


class Waking:
    """A `Waker` that chooses by itself.

    Args:
        doorbell: This peer's doorbell, whose rings are passed to `rang`; None: there is none. Stays the caller's.
        database: Whose connections to listen on.
        wake: The name to LISTEN to.
        notify: Has the server notify those that listen to the channel.
        wake_by: Tells the server this peer's address, and whether it listens. Raises `BackendError`.
        subject: What the log calls this, e.g. "channel 'orders'".
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        doorbell: Doorbell | None,
        database: Database,
        wake: str,
        *,
        notify: Callable[[], Awaitable[None]],
        wake_by: Callable[[str | None, bool], Awaitable[None]],
        subject: str = "the channel",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = None if doorbell is None else doorbell.address
        self._database = database
        self._name = wake
        self._notify = notify
        self._wake_by = wake_by
        self._subject = subject
        self._trust = DoorbellTrust(doorbell is not None, clock)
        self._watches = self._foreign = False
        self._clock = clock
        self._notified_at = -_RELAYING
        self._audience = 1
        self._listener: Listener | None = None
        self._listens_since = 0
        self._told = False
        self._wake: Wake | None = None
        self._offer: Offer | None = None
        self._last_mode = self._logged_mode = self.mode
        self._logging: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def mode(self) -> str:
        """`doorbell`, `listen`, or `poll` where neither tells of every message."""
        listening = self._listener is not None and self._listener.listening
        if self._trust.trusted and (listening or not (self._watches and self._foreign)):
            return "doorbell"
        return "listen" if listening else "poll"

    @property
    def audience(self) -> int:
        """How many peers the channel has, as far as is known; at least 1."""
        return self._audience

    async def start(self, wake: Wake, offer: Offer) -> None:
        """Begin to pass on what is heard."""
        self._wake, self._offer = wake, offer
        self._database.on_renewed.add(self._notice)
        self._changed.set()
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="bus_waking")

    async def close(self) -> None:
        """Stop calling."""
        self._wake = self._offer = None
        self._database.on_renewed.discard(self._notice)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._stop_listening()
        if self._logging is not None:
            self._logging.cancel()
            self._logging = None

    def rang(self, first_id: int, count: int, payloads: Sequence[bytes] | None) -> None:
        """The doorbell was rung for these messages."""
        trusted = self._trust.trusted
        self._trust.rang(first_id, count)
        if self._trust.trusted != trusted:
            self._notice()
        if payloads is not None and self._offer is not None:
            self._offer(first_id, payloads)
        elif self._wake is not None:
            self._wake(first_id + count - 1)

    def knocked(self) -> None:
        """There may be messages: a notification came, or a ring under a key that is not ours, perhaps not yet."""
        if self._wake is not None:
            self._wake()

    def _notified(self) -> None:
        self._notified_at = self._clock()
        self.knocked()

    def published(self, first_id: int, payloads: Sequence[bytes | None]) -> None:
        """This process published these messages; None for what is not delivered to itself."""
        self._trust.published(first_id, len(payloads))
        if self._offer is not None:
            self._offer(first_id, payloads)

    def overlooked(self) -> None:
        """The reader found messages that nothing had announced."""
        if self.mode == "poll":
            return
        self._trust.overlooked()
        if self._listener is not None:
            self._listener.suspect()
        self._notice()

    def update(self, *, wake: str, foreign: bool, watches: bool, peers: int) -> None:
        """What the roster says: the name to LISTEN to, whether some peers ring nobody, whether it falls to this one to
        listen for those, and how many peers there are."""
        self._audience = max(1, peers)
        self._name, self._watches, self._foreign = wake, watches, foreign
        self._notice()

    @property
    def relays(self) -> bool:
        """Whether to ring the others for messages that this peer finds in the log and nobody rang for."""
        return self._watches and (self._foreign or self._clock() - self._notified_at < _RELAYING)

    def _notice(self) -> None:
        """Something may have changed."""
        mode = self.mode
        if mode != self._last_mode:
            self._last_mode = mode
            if self._logging is None and self._task is not None:
                self._logging = asyncio.get_running_loop().call_later(_SETTLING, self._log_mode)
            if self._wake is not None:
                # The reader has to look more often from now on, or less.
                self._wake()
        if self._listens != (self._listener is not None) or self._outdated or self._told != self._should_tell:
            self._changed.set()

    def _log_mode(self) -> None:
        self._logging = None
        if self._last_mode != self._logged_mode:
            logger.info(
                "%s: new messages are noticed by %s (before: %s)", self._subject, self._last_mode, self._logged_mode
            )
            self._logged_mode = self._last_mode

    @property
    def _listens(self) -> bool:
        """Whether to listen."""
        return (self._watches or not self._trust.trusted) and self._database.spares_a_connection

    @property
    def _outdated(self) -> bool:
        """Whether it listens to a former name, or with former credentials."""
        return self._listener is not None and (
            self._listener.name != self._name or self._listens_since != self._database.renewals
        )

    @property
    def _should_tell(self) -> bool:
        """Whether the server should have this peer notified: only if it hears, and does not rely on its doorbell."""
        if self._trust.trusted or self._listener is None or self._listener.deaf:
            return False
        # What it knows stays true while the connection is replaced.
        return self._told or self._listener.listening

    async def _follow(self) -> None:
        backoff = Backoff()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._outdated:
                await self._stop_listening()
            if self._listens and self._listener is None:
                self._listens_since = self._database.renewals
                self._listener = Listener(
                    self._database.connection,
                    self._name,
                    notify=self._notify,
                    wake=self._notified,
                    on_change=self._notice,
                )
                self._listener.start()
            if not await self._tell():
                await asyncio.sleep(backoff.next_delay())
                self._changed.set()
            else:
                backoff.reset()
            if not self._listens:
                await self._stop_listening()

    async def _tell(self) -> bool:
        """Tell the server what it does not know; False to try again."""
        listens = self._should_tell
        if listens == self._told:
            return True
        try:
            await self._wake_by(self._address, listens)
        except BackendError as exc:
            logger.debug("%s: telling how to wake this peer failed: %s", self._subject, exc)
            # Refused: this membership is over, and whatever follows it tells for itself.
            if not isinstance(exc, AccessDeniedError):
                return False
        self._told = listens
        return True

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
            self._notice()
