"""A pod of the pictures: `python worker.py ROLE`, with bindings as the operator gives them, its name in HOSTNAME."""

import asyncio
import itertools
import sys
from dataclasses import dataclass

from bus_runtime import BusDataMessage, BusMessage, BusSubscriber, PgmqBus


@dataclass(kw_only=True)
class OrderPlaced(BusDataMessage):
    """What the shop publishes."""

    order: str
    total: float


@dataclass(kw_only=True)
class InvoiceSent(BusDataMessage):
    """What billing publishes."""

    invoice: str
    order: str


class Shop(BusSubscriber):
    """Publishes, and is told of all orders as everybody is."""

    name = "shop"

    async def on_bus_message(self, message: BusMessage) -> None:
        """Knows them already."""


class Billing(BusSubscriber):
    """Sends an invoice for each order."""

    name = "billing"

    def __init__(self, invoices: PgmqBus) -> None:
        self._invoices = invoices

    async def on_bus_message(self, message: BusMessage) -> None:
        """Of what is on its channel only orders are its business."""
        if isinstance(message, OrderPlaced):
            invoice = f"INV-{message.order[2:]}"
            await self._invoices.publish(InvoiceSent(source="billing-0", invoice=invoice, order=message.order))


class Search(BusSubscriber):
    """Hangs in its first message, as if its index did not answer."""

    name = "search"

    async def on_bus_message(self, message: BusMessage) -> None:
        """For ever."""
        await asyncio.Event().wait()


async def shop() -> None:
    """Publishes some orders a second."""
    bus = PgmqBus.from_binding("orders", application="shop")
    await bus.subscribe(Shop())
    await bus.start()
    for number in itertools.count(1):
        order = OrderPlaced(source="shop-api", order=f"A-{number}", total=5 + number * 7 % 95 + 0.99)
        await bus.publish(order, raise_on_error=True)
        await asyncio.sleep(0.04)


async def billing() -> None:
    """A durable peer that publishes on another channel."""
    orders = PgmqBus.from_binding("orders", peer="billing", application="billing")
    invoices = PgmqBus.from_binding("invoices", application="billing")
    await invoices.start()
    await orders.subscribe(Billing(invoices))
    await orders.start()


async def archive() -> None:
    """Two channels, a durable peer on each."""
    for channel in ("orders", "invoices"):
        bus = PgmqBus.from_binding(channel, peer="archive", application="archive")
        await bus.subscribe(Shop())
        await bus.start()


async def search() -> None:
    """A peer that stalls."""
    bus = PgmqBus.from_binding("orders", application="search")
    await bus.subscribe(Search())
    await bus.start()


async def _main() -> None:
    roles = {"shop": shop, "billing": billing, "archive": archive, "search": search}
    await roles[sys.argv[1]]()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
