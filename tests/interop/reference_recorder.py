"""A subscriber of the reference client that keeps what it is handed."""

from pipecat.bus import BusMessage, BusSubscriber


class ReferenceRecorder(BusSubscriber):
    """See the module."""

    def __init__(self, name: str = "reference") -> None:
        self._name = name
        self.messages: list[BusMessage] = []

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None:
        self.messages.append(message)
