"""The bus as subscribers see it, and the bus that stays in the process."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections import defaultdict

from bus_runtime.dispatch import Delivery, Subscription
from bus_runtime.messages import BusLocalMessage, BusMessage
from bus_runtime.subscriber import BusSubscriber

_name_counts: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)


class WorkerBus(ABC):
    """Publish and subscribe between workers; see `dispatch.py` for the order of delivery.

    A transport implements `publish` and calls `on_message_received` for what arrives.

    Args:
        name: Name of this bus in logs; default `ClassName#count`.
    """

    def __init__(self, *, name: str | None = None) -> None:
        cls_name = type(self).__name__
        self._name = name or f"{cls_name}#{next(_name_counts[cls_name])}"
        self._subscriptions: dict[str, Subscription] = {}
        self._running = False
        self._handler_errors = 0

    @property
    def name(self) -> str:
        """Name of this bus in logs."""
        return self._name

    def __str__(self) -> str:
        return self._name

    async def start(self) -> None:
        """Begin to deliver to the subscribers. Does nothing on a running bus."""
        if self._running:
            return
        self._running = True
        for subscription in self._subscriptions.values():
            subscription.start()
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Stop delivering; handlers under way are cancelled. Does nothing on a stopped bus."""
        if not self._running:
            return
        self._running = False
        for subscription in list(self._subscriptions.values()):
            await subscription.stop()

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver to `subscriber` from now on. A second subscriber of the same name is ignored."""
        if subscriber.name in self._subscriptions:
            return
        subscription = self._add(subscriber)
        if self._running:
            subscription.start()
            await asyncio.sleep(0)

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        """Stop delivering to the subscriber of this name; a handler under way is cancelled, unless it is the caller."""
        if subscriber.name in self._subscriptions:
            await self._remove(subscriber).close()

    async def send(self, message: BusMessage) -> None:
        """Publish the message, or deliver it in this process only if it is a `BusLocalMessage`."""
        if isinstance(message, BusLocalMessage):
            self.on_message_received(message)
        else:
            await self.publish(message)

    @abstractmethod
    async def publish(self, message: BusMessage) -> None:
        """Hand the message to the transport."""

    def on_message_received(self, message: BusMessage) -> None:
        """Deliver a message that arrived to every subscriber of this process."""
        delivery = Delivery(message, len(self._subscriptions), None)
        for subscription in self._subscriptions.values():
            subscription.put(delivery)

    def _add(self, subscriber: BusSubscriber) -> Subscription:
        subscription = self._subscriptions[subscriber.name] = Subscription(subscriber, self._count_handler_error)
        return subscription

    def _remove(self, subscriber: BusSubscriber) -> Subscription:
        return self._subscriptions.pop(subscriber.name)

    def _count_handler_error(self) -> None:
        self._handler_errors += 1


class AsyncQueueBus(WorkerBus):
    """A bus within one process: what is published is delivered to the subscribers of this object."""

    async def publish(self, message: BusMessage) -> None:
        """Deliver to every subscriber."""
        self.on_message_received(message)
