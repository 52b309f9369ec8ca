"""How much a subscriber may hold, and what reading does about one that is full: bounded memory, nothing lost.

Every subscription has a `Budget` for the messages that wait for its handlers or are with them. A `Flow` stands between
the reader of a channel and the subscriptions. This one is for backends without a log: a queue hands a message out once,
for everyone, so reading stops while any subscriber is full. `LogFlow` (lagging.py) does better where there is a log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bus_runtime.dispatch import Around, Delivery, Subscription
from bus_runtime.messages import BusMessage


@dataclass(frozen=True, slots=True)
class Limits:
    """What one subscriber may hold at a time.

    Attributes:
        messages: So many messages, at least 1.
        bytes: So many bytes of their JSON, at least 1. The message that exceeds it is taken, so that the largest one
            fits any limit.
    """

    messages: int = 1000
    bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        for name, value in (("max_in_flight", self.messages), ("max_in_flight_bytes", self.bytes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class Budget:
    """What one subscription holds. Once full, it has room again when half of it is used up, not with each message.

    Args:
        limits: The most it may hold.
        on_full: Called when that is reached.
        on_room: Called when it has room again.
    """

    __slots__ = ("_emptied", "_max_bytes", "_max_messages", "_on_full", "_on_room", "bytes", "is_full", "messages")

    def __init__(self, limits: Limits, on_full: Callable[[], None], on_room: Callable[[], None]) -> None:
        self._max_messages = limits.messages
        self._max_bytes = limits.bytes
        self._on_full = on_full
        self._on_room = on_room
        self._emptied: asyncio.Event | None = None
        self.messages = 0
        self.bytes = 0
        self.is_full = False

    @property
    def room(self) -> int:
        """For how many messages more there is room, provided that they are as large as those it holds."""
        if self.is_full:
            return 0
        room = self._max_messages - self.messages
        if self.bytes:
            room = min(room, (self._max_bytes - self.bytes) * self.messages // self.bytes)
        return max(room, 1)

    def take(self, size: int) -> None:
        """One message more, of `size` bytes."""
        self.messages += 1
        self.bytes += size
        if not self.is_full and (self.messages >= self._max_messages or self.bytes >= self._max_bytes):
            self.is_full = True
            self._on_full()

    def release(self, size: int) -> None:
        """A message is handled."""
        self.messages -= 1
        self.bytes -= size
        if self.is_full and self.messages <= self._max_messages // 2 and self.bytes <= self._max_bytes // 2:
            self.is_full = False
            self._on_room()
        if self._emptied is not None and not self.messages:
            self._emptied.set()

    def reset(self) -> None:
        """Nothing is held any more; nobody is told that there is room."""
        self.messages = self.bytes = 0
        self.is_full = False
        if self._emptied is not None:
            self._emptied.set()

    async def empty(self) -> None:
        """Wait until nothing is held."""
        while self.messages:
            self._emptied = asyncio.Event()
            await self._emptied.wait()


class Flow:
    """Delivers what is read to the subscriptions, and says whether more may be read.

    Args:
        limits: What each subscription may hold.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._budgets: dict[Subscription, Budget] = {}
        #: What is held of messages that are no subscription's: while it is full nothing is read.
        self.aside = Budget(limits, ignore, self._tell_room)
        # Replaced and never changed: a subscription may drop out while a message is being delivered.
        self._followers: tuple[Subscription, ...] = ()
        self._on_room: Callable[[], None] = ignore

    @property
    def _all_budgets(self) -> tuple[Budget, ...]:
        return (self.aside, *self._budgets.values())

    @property
    def messages(self) -> int:
        """How many messages the subscriptions hold; one that several hold counts for each."""
        return sum(budget.messages for budget in self._all_budgets)

    @property
    def bytes(self) -> int:
        """How many bytes of JSON the subscriptions hold, counted likewise."""
        return sum(budget.bytes for budget in self._all_budgets)

    @property
    def room(self) -> int:
        """How many messages may be read at most; 0: none until `on_room` is called."""
        return min(budget.room for budget in self._all_budgets)

    @property
    def is_open(self) -> bool:
        """Whether there is room."""
        return not any(budget.is_full for budget in self._all_budgets)

    @property
    def lagging(self) -> dict[str, int]:
        """The subscribers that are behind the reader, and by how many messages: none, they all wait for the slowest."""
        return {}

    def begin(self, on_room: Callable[[], None]) -> None:
        """Reading begins; `on_room` is called when there is room again."""
        self._on_room = on_room

    def add(self, subscription: Subscription) -> None:
        """Deliver to this subscription from now on."""
        budget = Budget(self._limits, partial(self._full, subscription), partial(self._room_again, subscription))
        self._budgets[subscription] = subscription.load = budget
        self._followers = (*self._followers, subscription)

    def remove(self, subscription: Subscription) -> None:
        """Deliver to it no more."""
        del self._budgets[subscription]
        self._followers = tuple(s for s in self._followers if s is not subscription)
        # It may have been what reading waited for.
        self._tell_room()

    def deliver(
        self,
        msg_id: int,
        message: BusMessage,
        size: int,
        on_handled: Callable[[], None] | None,
        around: Around | None = None,
    ) -> None:
        """Deliver a message, and call `on_handled` when every subscription that got it is through with it.

        Args:
            msg_id: Its id in the channel.
            message: The message.
            size: Bytes of its JSON.
            on_handled: What to call.
            around: See `Delivery`.
        """
        followers = self._followers
        if followers:
            delivery = Delivery(message, len(followers), on_handled, size, around)
            for subscription in followers:
                subscription.put(delivery)
        elif on_handled is not None:
            on_handled()

    async def drain(self, seconds: float) -> bool:
        """Wait at most so long until the subscriptions hold nothing; whether they do."""
        try:
            async with asyncio.timeout(seconds):
                for budget in tuple(self._budgets.values()):
                    await budget.empty()
        except TimeoutError:
            return False
        return True

    def _full(self, subscription: Subscription) -> None:
        """Nothing to do: whoever reads asks for the room before."""

    def _room_again(self, subscription: Subscription) -> None:
        self._tell_room()

    def _tell_room(self) -> None:
        self._on_room()


def ignore() -> None:
    """What is called before anybody wants to be."""
