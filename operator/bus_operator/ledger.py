"""Which BusChannels were found right, and what they looked like then: those need no look of their own.

A survey reads all channels of a database at once. One that still looks as it did when it was last found right, with the
same manifest and the same version of its Secret, is right; nothing is asked about it and nothing is written. A digest
of each is all that is kept.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bus_operator.catalog import ChannelCounts, ObservedChannel
from bus_operator.inventory import Key, Resource, comes_before
from bus_operator.model import Uid


class Surveyed(NamedTuple):
    """What a survey found of one channel."""

    shard: int
    observed: ObservedChannel
    counts: ChannelCounts


class Settled(NamedTuple):
    """A BusChannel that was found right."""

    uid: Uid
    generation: int
    digest: int
    """Of what was observed in the database."""
    secret: str
    """The name of the binding's Secret."""
    secret_version: str
    due: float
    """When it wants a look of its own even if nothing changes."""


class Ledger:
    """The settled BusChannels.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._settled: dict[Key, Settled] = {}

    def settle(
        self,
        resource: Resource,
        observed: ObservedChannel,
        *,
        secret: str,
        secret_version: str,
        look_again: float | None = None,
    ) -> None:
        """Notes that all is right.

        Args:
            resource: The BusChannel, as it was when this was found out.
            observed: What is in the database now.
            secret: The name of its Secret.
            secret_version: The resource version of its Secret.
            look_again: Seconds after which it wants a look even if nothing changes, as for a rotation.
        """
        due = self._clock() + look_again if look_again is not None else float("inf")
        self._settled[resource.key] = Settled(
            resource.uid, resource.generation, hash(observed), secret, secret_version, due
        )

    def forget(self, key: Key) -> None:
        """It wants a look: something happened, or is going to."""
        self._settled.pop(key, None)

    def is_settled(self, key: Key) -> bool:
        """Whether it was found right, and nobody said otherwise since."""
        return key in self._settled

    def agrees(self, resource: Resource, observed: ObservedChannel) -> bool:
        """Whether nothing has changed since the BusChannel was found right."""
        settled = self._settled.get(resource.key)
        return (
            settled is not None
            and settled.uid == resource.uid
            and settled.generation == resource.generation
            and settled.digest == hash(observed)
            and self._clock() < settled.due
        )

    def holds_secret(self, key: Key, name: str, version: str) -> bool:
        """False when a settled BusChannel was found right with an older version of its Secret."""
        settled = self._settled.get(key)
        if settled is None or settled.secret != name:
            return True
        return settled.secret_version == version or comes_before(version, settled.secret_version)

    def settled_in(self, namespace: str) -> Iterator[tuple[Key, Settled]]:
        """Those of a namespace."""
        return (item for item in tuple(self._settled.items()) if item[0][0] == namespace)
