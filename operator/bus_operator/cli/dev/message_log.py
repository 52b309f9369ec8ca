"""Shows the messages that pass on the channels of a run: a peer on each, for which the channel was given room."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from bus_operator.cli import messages
from bus_operator.cli.messages import Message
from bus_runtime import BackendError, BindingError, IsolatedPgmqBackend
from bus_runtime.binding import find_binding
from bus_runtime.wire import Wire

_LAST_LOOK = 1.0
"""Seconds at most."""

Show = Callable[[str, Message], None]
"""Takes the name of a BusChannel and a message."""


class MessageLog:
    """Follows channels by their bindings.

    Args:
        root: Where the bindings are.
        show: Takes what passes.
        tell: Told why a channel cannot be followed, and when messages were missed.
    """

    def __init__(self, root: Path, show: Show, tell: Callable[[str], None]) -> None:
        self._root = root
        self._show = show
        self._tell = tell
        self._wires: dict[str, tuple[str, Wire]] = {}

    async def follow(self, names: Iterable[str]) -> None:
        """Follows these BusChannels, and no others any more."""
        wanted = set(names)
        for name in self._wires.keys() - wanted:
            await self._wires.pop(name)[1].stop()
        await asyncio.gather(*(self._begin(name) for name in sorted(wanted)))

    async def stop(self) -> None:
        """Leaves all channels, once what is published by now was shown: workers may have ended just now."""
        wires = [wire for _, wire in self._wires.values()]
        self._wires.clear()
        await asyncio.gather(*(wire.stop(last_look=_LAST_LOOK) for wire in wires))

    async def _begin(self, name: str) -> None:
        try:
            binding = find_binding(name, root=self._root)
            followed = self._wires.get(name)
            if followed is not None:
                if followed[0] == binding.channel:
                    # The runtime goes over to other credentials by itself.
                    return
                await self._wires.pop(name)[1].stop()
            backend = IsolatedPgmqBackend(binding=binding)
            wire = Wire(
                backend,
                binding.channel,
                application="busctl dev",
                receive=partial(self._receive, name),
                on_lost=lambda count: self._tell(f"{name}: up to {count} messages were trimmed before they were shown"),
            )
            try:
                await wire.start()
            except BackendError:
                await backend.close()
                raise
        except (BindingError, BackendError) as exc:
            self._tell(f"messages of {name} are not shown: {exc}")
            return
        self._wires[name] = (binding.channel, wire)

    def _receive(self, name: str, msg_id: int, payload: bytes) -> None:
        self._show(name, messages.read(msg_id, payload))
