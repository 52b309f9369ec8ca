"""A PGMQ queue per peer, for peers that trust each other; compatible with the reference client's direct backend.

Peers find each other by the names of their queues: `{channel}_{12 hex digits}`. Publishing sends to each.
Needs the extra `pgmq-bus[direct]`.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
import warnings
from typing import TYPE_CHECKING, Any

from bus_runtime.backend import BackendMessage

if TYPE_CHECKING:
    from pgmq.async_queue import PGMQueue

logger = logging.getLogger(__name__)

_FOREIGN = re.compile(r"[^A-Za-z0-9_]")
_MAX_PREFIX = 30
_PEERS_VALID_FOR = 1.0


def queue_prefix(channel: str) -> str:
    """The part of a queue name that stands for the channel: at most 30 letters, digits and underscores."""
    prefix = _FOREIGN.sub("_", channel)
    if prefix[:1].isdigit():
        prefix = f"q_{prefix}"
    return prefix[:_MAX_PREFIX] or "pipecat_bus"


class DirectPgmqBackend:
    """A `PgmqBackend` on the functions of PGMQ itself.

    Args:
        pgmq: An initialised client, which stays the caller's.
    """

    def __init__(self, pgmq: PGMQueue) -> None:
        self._pgmq = pgmq
        self._peers_of: dict[str, tuple[float, list[str]]] = {}
        # pgmq 1.1 announces on every call that the result changed, which _peers takes into account.
        warnings.filterwarnings("ignore", message=r"list_queues\(\) now returns", category=UserWarning)

    async def join(self, channel: str) -> str:
        """Create a queue for this peer."""
        queue = f"{queue_prefix(channel)}_{uuid.uuid4().hex[:12]}"
        await self._pgmq.create_queue(queue)
        return queue

    async def publish(self, channel: str, my_queue: str, payload: dict[str, Any]) -> None:
        """Send to each peer's queue. A peer that fails is logged, and the peers are looked up again next time."""
        for queue in await self._peers(channel):
            try:
                await self._pgmq.send(queue, payload)
            except Exception as exc:  # most often the peer just dropped its queue; the others still get theirs
                logger.warning("sending to peer queue %r failed: %s", queue, exc)
                self._peers_of.pop(channel, None)

    async def read(
        self,
        queue: str,
        *,
        channel: str,
        vt: int,
        qty: int,
        max_poll_seconds: int,
        poll_interval_ms: int,
    ) -> list[BackendMessage]:
        """Wait in the server for up to `qty` messages."""
        messages = await self._pgmq.read_with_poll(
            queue=queue, vt=vt, qty=qty, max_poll_seconds=max_poll_seconds, poll_interval_ms=poll_interval_ms
        )
        return [BackendMessage(message.msg_id, message.message) for message in messages or []]

    async def archive(self, queue: str, *, channel: str, msg_id: int) -> bool:
        """Delete the message."""
        return bool(await self._pgmq.delete(queue, msg_id))

    async def leave(self, queue: str, *, channel: str) -> None:
        """Drop this peer's queue."""
        await self._pgmq.drop_queue(queue)
        self._peers_of.pop(channel, None)

    async def _peers(self, channel: str) -> list[str]:
        looked_up, peers = self._peers_of.get(channel, (0.0, []))
        if peers and time.monotonic() - looked_up < _PEERS_VALID_FOR:
            return peers
        # Records since pgmq 1.1, names before.
        names = [str(getattr(queue, "queue_name", queue)) for queue in await self._pgmq.list_queues()]
        # The whole name, or channel `a` would also send to the peers of channel `a_b`.
        ours = re.compile(rf"{queue_prefix(channel)}_[0-9a-f]{{12}}")
        peers = [name for name in names if ours.fullmatch(name)]
        self._peers_of[channel] = (time.monotonic(), peers)
        return peers
