"""Which BusChannels were found right, and what they looked like then: those need no look of their own.

A survey reads all channels of a database at once. One that still looks as it did when it was last found right, with the
same manifest and the same version of its Secret, is right; nothing is asked about it and nothing is written. A digest
of each is all that is kept; of one that is not at rest, as while a login is on its way, only the Secret's version.
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


class Seen(NamedTuple):
    """A BusChannel as it was left by the last look, which found nothing wrong with it."""

    uid: Uid
    generation: int
    rotate: str | None
    """The annotation by which other credentials are asked for: it changes no generation."""
    digest: int | None
    """Of what was observed in the database; None: it is not at rest yet, and gets a look of its own soon."""
    secret: str
    """The name of the binding's Secret."""
    secret_version: str
    due: float
    """When it wants a look of its own even if nothing changes."""


class Ledger:
    """The BusChannels that were looked at; those of them that are at rest are settled.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._seen: dict[Key, Seen] = {}

    def note(
        self,
        resource: Resource,
        observed: ObservedChannel | None,
        *,
        secret: str,
        secret_version: str,
        look_again: float | None = None,
    ) -> None:
        """Notes that nothing is wrong.

        Args:
            resource: The BusChannel, as it was when this was found out.
            observed: What is in the database now, if it is at rest.
            secret: The name of its Secret.
            secret_version: The resource version of its Secret.
            look_again: Seconds after which it wants a look even if nothing changes, as for a rotation.
        """
        due = self._clock() + look_again if look_again is not None else float("inf")
        digest = None if observed is None else hash(observed)
        self._seen[resource.key] = Seen(
            resource.uid, resource.generation, resource.rotate, digest, secret, secret_version, due
        )

    def forget(self, key: Key) -> None:
        """It wants a look: something happened, or is going to."""
        self._seen.pop(key, None)

    def holds(self, key: Key) -> bool:
        """Whether it was looked at, and nobody said since that it wants another look."""
        return key in self._seen

    def is_settled(self, key: Key) -> bool:
        """The same, if it was at rest."""
        seen = self._seen.get(key)
        return seen is not None and seen.digest is not None

    def agrees(self, resource: Resource, observed: ObservedChannel) -> bool:
        """Whether nothing has changed since the BusChannel was found right."""
        seen = self._seen.get(resource.key)
        return (
            seen is not None
            and seen.uid == resource.uid
            and seen.generation == resource.generation
            and seen.rotate == resource.rotate
            and seen.digest == hash(observed)
            and self._clock() < seen.due
        )

    def holds_secret(self, key: Key, name: str, version: str) -> bool:
        """False when the last look at a BusChannel was at an older version of its Secret."""
        seen = self._seen.get(key)
        if seen is None or seen.secret != name:
            return True
        return seen.secret_version == version or comes_before(version, seen.secret_version)

    def seen_in(self, namespace: str) -> Iterator[tuple[Key, Seen]]:
        """Those of a namespace."""
        return (item for item in tuple(self._seen.items()) if item[0][0] == namespace)
