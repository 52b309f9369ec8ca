"""How far a peer may acknowledge while handlers finish in any order."""

from __future__ import annotations

from collections import deque


class AcknowledgementTracker:
    """Moves a position over a log, only past messages that are handled.

    Messages are added in log order and completed in any order (a system message is handled before the
    data messages it overtook). `position` is the id up to which everything is handled.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        self._open: deque[int] = deque()
        self._handled: set[int] = set()

    @property
    def position(self) -> int:
        """Id up to which every message is handled."""
        return self._position

    @property
    def in_flight(self) -> int:
        """How many messages were added and are not handled."""
        return len(self._open) - len(self._handled)

    def add(self, msg_id: int) -> None:
        """A message was delivered; ids ascend."""
        self._open.append(msg_id)

    def complete(self, msg_id: int) -> bool:
        """A message was handled; True when the position moved."""
        waiting = self._open
        if not waiting or waiting[0] != msg_id:
            self._handled.add(msg_id)
            return False
        # Handled in order, as most are.
        self._position = waiting.popleft()
        while waiting and waiting[0] in self._handled:
            self._position = waiting.popleft()
            self._handled.discard(self._position)
        return True
