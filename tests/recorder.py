"""What tests of the runtime share: a subscriber that records, and waiting on conditions."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bus_runtime import BusDataMessage, BusMessage, BusSubscriber, BusSystemMessage

Handler = Callable[[BusMessage], Awaitable[None]]


@dataclass
class Note(BusDataMessage):
    """A data message with a number."""

    number: int


@dataclass
class Alarm(BusSystemMessage):
    """A system message with a number."""

    number: int


def note(number: int, source: str = "test") -> Note:
    return Note(number, source=source)


def alarm(number: int, source: str = "test") -> Alarm:
    return Alarm(number, source=source)


class Panic(BaseException):
    """As an extension written in Rust raises it: no `Exception`."""


class Recorder(BusSubscriber):
    """Keeps what it is handed; `handler` runs before a message counts as handled."""

    def __init__(self, name: str = "recorder", handler: Handler | None = None) -> None:
        self._name = name
        self._handler = handler
        self.begun: list[BusMessage] = []
        self.messages: list[BusMessage] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def numbers(self) -> list[int]:
        return [message.number for message in self.messages if isinstance(message, Note | Alarm)]

    async def on_bus_message(self, message: BusMessage) -> None:
        self.begun.append(message)
        if self._handler is not None:
            await self._handler(message)
        self.messages.append(message)


async def eventually(condition: Callable[[], object], seconds: float = 25.0) -> None:
    """Wait until the condition holds: not for as long as a bus takes that only its own looks help, half a minute."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError("the condition did not come true in time") from None
