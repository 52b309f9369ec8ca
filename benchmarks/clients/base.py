"""What every system is used through, so that they all do the same work."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

#: What is published: `t`, the time of the publish call (CLOCK_MONOTONIC in nanoseconds, 0 when warming up), and
#: padding.
Payload = dict[str, Any]

#: The handler: takes the payload of a message after the client's normal decoding.
Receive = Callable[[Payload], None]

#: Of the type that the systems without a bus of their own put on the wire themselves.
_TAG = "pipecat.bus.messages.BusJobRequestMessage"


class Client(ABC):
    """One connection of one process to one channel of a system."""

    @abstractmethod
    async def publish(self, payload: Payload) -> None:
        """Return when the system has taken the message, as far as its client can tell."""

    @abstractmethod
    async def close(self) -> None:
        """Leave the channel and close the connection."""

    def resume(self) -> None:  # noqa: B027  # only the clients that can be stalled have something to do
        """Let a stalled handler go on."""


class Endpoint(ABC):
    """Where a channel of a system is. Sent to the processes, so it is picklable."""

    @abstractmethod
    async def connect(self, receive: Receive | None) -> Client:
        """Join the channel, to publish and, with a handler, to receive."""


def envelope(number: int, payload: Payload) -> dict[str, Any]:
    """The JSON object that the buses send for a payload."""
    fields = {
        "id": number, "name": f"BusJobRequestMessage#{number}", "source": "bench", "job_id": "job", "payload": payload,
    }  # fmt: skip
    return {"__type__": _TAG, "__data__": fields}


def opened(message: dict[str, Any]) -> Payload:
    """The payload of what `envelope` made."""
    payload: Payload = message["__data__"]["payload"]
    return payload
