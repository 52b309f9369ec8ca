"""What a bus delivers to."""

from __future__ import annotations

from bus_runtime.messages import BusMessage


class BusSubscriber:
    """Mixin for objects that receive messages from a `WorkerBus`."""

    @property
    def name(self) -> str:
        """Unique name of this subscriber on its bus."""
        raise NotImplementedError(f"{type(self).__name__} must provide a name to subscribe to a bus")

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Whether this subscriber wants `message`. Asked before every delivery, and of each subscriber separately."""
        return True

    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle an accepted message. What it raises is logged and counted, and the next message follows."""
