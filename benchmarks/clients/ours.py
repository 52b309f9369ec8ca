"""bus_runtime, as an application uses it: a binding directory and nothing else."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.clients.base import Client, Endpoint, Payload, Receive
from bus_runtime import BusJobRequestMessage, BusMessage, BusSubscriber, PgmqBus


class _Subscriber(BusSubscriber):
    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    @property
    def name(self) -> str:
        return "bench"

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage) and message.payload is not None:
            self._receive(message.payload)


class _StalledSubscriber(_Subscriber):
    """Stays with its first message until it is told to go on."""

    def __init__(self, receive: Receive) -> None:
        super().__init__(receive)
        self.go_on = asyncio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        await self.go_on.wait()
        await super().on_bus_message(message)


class _Bus(Client):
    def __init__(self, bus: PgmqBus, subscriber: _Subscriber | None) -> None:
        self._bus = bus
        self._subscriber = subscriber

    async def publish(self, payload: Payload) -> None:
        message = BusJobRequestMessage("job", source="bench", payload=payload)
        await self._bus.publish(message, raise_on_error=True)

    async def close(self) -> None:
        await self._bus.stop()

    def resume(self) -> None:
        if isinstance(self._subscriber, _StalledSubscriber):
            self._subscriber.go_on.set()


@dataclass(frozen=True)
class BusEndpoint(Endpoint):
    """A channel that `busctl apply` made.

    Attributes:
        root: The directory of bindings.
        binding: The binding's name.
        stalled: Whether the handler does not return until it is told to.
        options: Arguments of `PgmqBus`, where a measurement is about them.
    """

    root: Path
    binding: str
    stalled: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    async def connect(self, receive: Receive | None) -> Client:
        """See the base class."""
        bus = PgmqBus.from_binding(self.binding, root=self.root, **self.options)
        subscriber = None
        if receive is not None:
            subscriber = _StalledSubscriber(receive) if self.stalled else _Subscriber(receive)
            await bus.subscribe(subscriber)
        await bus.start()
        return _Bus(bus, subscriber)
