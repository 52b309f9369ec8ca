"""Tells the other peers of a channel what was just committed: rings their doorbells, notifies those that listen.

Whom to tell is in the channel's roster. Every answer of the server names the roster's version, under the same lock as
the messages themselves, so a publisher knows at once when somebody came: who joined before a message was
committed is in the roster of the version that came with it. Nothing here is waited for by a publish, and whatever
fails costs the peers concerned no more than the time until they look at the log by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from bus_runtime.backoff import Backoff
from bus_runtime.doorbell import Doorbell
from bus_runtime.errors import BackendError

logger = logging.getLogger(__name__)

#: Seconds between two looks at the roster, at most and per peer in it: while a thousand peers join, each publisher
#: looks ten times a second.
_REFRESH_INTERVAL = 0.1
_REFRESH_INTERVAL_PER_PEER = 0.001

#: Who does not publish need not know at once who came or went. Seconds until it looks, at random up to twice as long:
#: all peers of a channel together look about a hundred times a second while peers come and go.
_LEISURE_PER_PEER = 0.01
_MAX_LEISURE = 10.0
#: The same after joining: where many do so at once, the first of them should not look while the others come.
_FIRST_LEISURE = 3.0

#: Seconds after the last publish until it is announced once more, by its id only. A datagram that gets lost is noticed
#: with the next one; after the last there is none.
_REMINDER = 1.0


@dataclass(frozen=True, slots=True)
class Roster:
    """How to reach the live peers of a channel.

    Attributes:
        version: Grows with every change.
        key: What datagrams are sealed with, 32 bytes.
        wake: The name to LISTEN to (a secret).
        peers: How many there are, this one included.
        foreign: Whether there are peers that speak the reference client's protocol, whose messages are announced by
            NOTIFY only.
        watches: Whether this peer is the one that listens for those messages and rings the others for them.
        listeners: Whether there are peers that wait to be notified.
        addresses: The doorbells of the others.
    """

    version: int
    key: bytes = field(repr=False)
    wake: str = field(repr=False)
    peers: int
    foreign: bool
    watches: bool
    listeners: bool
    addresses: tuple[str, ...]


class Announcer:
    """Announces what one peer publishes.

    Args:
        fetch_roster: Asks the server for the roster.
        notify: Has the server notify those that listen.
        doorbell: What to ring with; None where there is none.
        on_roster: Told of each new roster.
    """

    def __init__(
        self,
        fetch_roster: Callable[[], Awaitable[Roster]],
        notify: Callable[[], Awaitable[None]],
        doorbell: Doorbell | None,
        on_roster: Callable[[Roster], None],
    ) -> None:
        self._fetch_roster = fetch_roster
        self._notify = notify
        self._doorbell = doorbell
        self._on_roster = on_roster
        self._roster: Roster | None = None
        self._known_version = 0
        self._peers = 1
        self._later: asyncio.TimerHandle | None = None
        self._later_within = 0.0
        self._reminder: asyncio.TimerHandle | None = None
        self._rung_to = 0
        self._rung_at = 0.0
        self._missed: tuple[int, int] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._refresh_at = 0.0
        self._backoff = Backoff(initial=_REFRESH_INTERVAL)
        self._notifying: asyncio.Task[None] | None = None
        self._notify_again = False
        self._closed = False

    def begin(self, key: bytes, peers: int, *, foreign: bool) -> None:
        """What joining told: the key, how many peers there are, whether some speak the reference client's protocol.

        The rest is looked at with leisure, unless it may fall to this peer to listen for those.
        """
        self._peers = peers
        if self._doorbell is not None:
            self._doorbell.set_roster(key, ())
        self._look_later(least=0.0 if foreign else _FIRST_LEISURE)

    def announce(self, first_id: int, payloads: Sequence[bytes], version: int) -> None:
        """These messages are committed, with ids from `first_id` on; `version` is the roster's at that moment."""
        roster = self._roster
        if self._doorbell is not None and roster is not None and roster.addresses:
            self._doorbell.ring(first_id, len(payloads), payloads)
            self._rung_to, self._rung_at = first_id + len(payloads) - 1, time.monotonic()
            if self._reminder is None and not self._closed:
                self._reminder = asyncio.get_running_loop().call_later(_REMINDER, self._remind)
        if roster is None or roster.version < version:
            # Whoever is new in it is told once it is here.
            first = first_id if self._missed is None else self._missed[0]
            self._missed = first, first_id + len(payloads) - 1
            self._known_version = max(self._known_version, version)
            self.refresh()
        elif roster.listeners:
            self._notify_soon()

    def _remind(self) -> None:
        """The last ring once more: who missed it has nothing else by which to notice."""
        self._reminder = None
        idle = time.monotonic() - self._rung_at
        if idle < _REMINDER:
            self._reminder = asyncio.get_running_loop().call_later(_REMINDER - idle, self._remind)
        elif self._doorbell is not None:
            self._doorbell.ring(self._rung_to, 1)

    def learn(self, version: int) -> None:
        """The server's roster is at this version, which changes nothing for the messages of this peer."""
        self._known_version = max(self._known_version, version)
        if self._roster is None or self._roster.version < self._known_version:
            self._look_later()

    def refresh(self) -> None:
        """Look at the roster, as soon as the last look is long enough ago."""
        self._cancel_later()
        if self._refreshing is None and not self._closed:
            self._refreshing = self._spawn(self._refresh(), "bus_roster")

    async def close(self) -> None:
        """Announce no more; what is under way is given up."""
        self._closed = True
        for timer in (self._later, self._reminder):
            if timer is not None:
                timer.cancel()
        tasks = [task for task in (self._refreshing, self._notifying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_later(self, *, least: float = 0.0) -> None:
        if self._refreshing is not None or self._closed:
            return
        leisure = max(least, min(_MAX_LEISURE, self._peers * _LEISURE_PER_PEER))
        # Later ones keep to what was drawn first, or whoever learns often would look early.
        if self._later is None or self._later_within > leisure:
            self._cancel_later()
            delay = leisure * random.uniform(0.0, 2.0)  # noqa: S311 - spreads load, hides nothing
            self._later, self._later_within = asyncio.get_running_loop().call_later(delay, self.refresh), leisure

    def _cancel_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    async def _refresh(self) -> None:
        try:
            while True:
                await asyncio.sleep(max(0.0, self._refresh_at - time.monotonic()))
                try:
                    roster = await self._fetch_roster()
                except BackendError as exc:
                    logger.debug("looking at the roster failed: %s", exc)
                    self._refresh_at = time.monotonic() + self._backoff.next_delay()
                    if exc.retryable:
                        continue
                    # The server's next answer to this peer, if there is one, names the version again.
                    return
                self._backoff.reset()
                interval = min(_REFRESH_INTERVAL, roster.peers * _REFRESH_INTERVAL_PER_PEER)
                self._refresh_at = time.monotonic() + interval
                self._apply(roster)
                if self._missed is None:
                    return
        finally:
            self._refreshing = None
            if self._roster is not None and self._roster.version < self._known_version:
                self._look_later()

    def _apply(self, roster: Roster) -> None:
        self._roster = roster
        self._peers = max(1, roster.peers)
        self._known_version = max(self._known_version, roster.version)
        if self._doorbell is not None:
            self._doorbell.set_roster(roster.key, roster.addresses)
        self._on_roster(roster)
        if self._missed is not None:
            first, last = self._missed
            if self._known_version <= roster.version:
                self._missed = None
            if self._doorbell is not None:
                self._doorbell.ring(first, last - first + 1)
            if roster.listeners:
                self._notify_soon()

    def _notify_soon(self) -> None:
        """One notification at a time: one that is asked for meanwhile follows, for all that came in between."""
        if self._notifying is not None:
            self._notify_again = True
        elif not self._closed:
            self._notifying = self._spawn(self._notify_listeners(), "bus_notify")

    async def _notify_listeners(self) -> None:
        try:
            while True:
                self._notify_again = False
                try:
                    await self._notify()
                except BackendError as exc:
                    logger.debug("notifying failed: %s", exc)
                if not self._notify_again:
                    return
        finally:
            self._notifying = None

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name=name)
