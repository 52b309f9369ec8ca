"""Follows a channel: everything that is published from now on, as it is on the wire."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, TextIO

import click

from bus_operator.cli import messages
from bus_operator.cli.messages import Message
from bus_operator.cli.printing import Printer
from bus_operator.texts import escaped_json
from bus_runtime import Binding, IsolatedPgmqBackend
from bus_runtime.wire import Wire

APPLICATION = "busctl tail"

_PATIENCE = 10.0
"""Seconds until a server that does not answer counts as unreachable."""

_WIDTH = 500
"""Characters of a message where the output is no terminal."""


@dataclass(frozen=True)
class Wanted:
    """Which messages are shown.

    Attributes:
        types: Class names or whole wire tags, any of which; `*` stands for anything. None given: all.
        sources: Names of senders, likewise.
        pattern: What the JSON has to contain.
    """

    types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None

    def takes(self, message: Message) -> bool:
        """Whether a message is wanted."""
        if self.types and not any(
            fnmatchcase(name, wanted) for name in (message.type or "-", message.short_type) for wanted in self.types
        ):
            return False
        if self.sources and not any(fnmatchcase(message.source or "", wanted) for wanted in self.sources):
            return False
        if self.pattern is None:
            return True
        return self.pattern.search(json.dumps(message.payload, ensure_ascii=False, separators=(",", ":"))) is not None


Render = Callable[[Message, datetime], str]
"""Makes a line of a message and of when it came."""


def as_json(channel: str) -> Render:
    """One JSON object a line. The shape is documented in docs/busctl.md and only ever grows."""

    def render(message: Message, at: datetime) -> str:
        line: dict[str, Any] = {
            "id": message.id,
            "channel": channel,
            "receivedAt": at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "type": message.type,
            "source": message.source,
            "target": message.target,
            "message": message.payload,
        }
        return escaped_json(json.dumps(line, ensure_ascii=False, separators=(",", ":")))

    return render


def as_text(stream: TextIO) -> Render:
    """For people: in one line, shortened to the terminal."""
    is_terminal = stream.isatty()
    coloured = is_terminal and not os.environ.get("NO_COLOR")

    def style(text: str, colour: str) -> str:
        return click.style(text, fg=colour) if coloured else text

    def render(message: Message, at: datetime) -> str:
        time, number = at.astimezone().strftime("%H:%M:%S.%f")[:-3], f"#{message.id}"
        plain = "  ".join(part for part in (time, number, message.short_type, message.route) if part)
        width = max(shutil.get_terminal_size().columns - len(plain) - 2, 20) if is_terminal else _WIDTH
        head = [style(time, "bright_black"), style(number, "cyan"), style(message.short_type, "yellow"), message.route]
        return "  ".join([*(part for part in head if part), message.shortened(width)])

    return render


@dataclass
class Tail:
    """Follows one channel.

    Args:
        binding: With which credentials.
        wanted: What to show.
        render: How.
        stream: Where.
        limit: After how many messages it is done; None: never.
    """

    binding: Binding
    wanted: Wanted
    render: Render
    stream: TextIO
    limit: int | None = None
    shown: int = field(default=0, init=False)
    lost: int = field(default=0, init=False)
    """Messages that the log no longer had when this read it."""
    skipped: int = field(default=0, init=False)
    """Messages that were received and not shown, because the output took them too slowly."""

    async def run(self, joined: Callable[[], None]) -> None:
        """Shows messages until the limit is reached or nobody reads any more; cancelled to end it. Leaves the channel.

        Args:
            joined: Called when every message from then on is received.

        Raises:
            BackendError: The server refused, or stayed out of reach.
        """
        printer = Printer(self.stream)
        done = asyncio.Event()

        def receive(msg_id: int, payload: bytes) -> None:
            if done.is_set():
                return
            message = messages.read(msg_id, payload)
            if self.wanted.takes(message) and printer.offer(self.render(message, datetime.now(UTC))):
                self.shown += 1
                if self.limit is not None and self.shown >= self.limit:
                    done.set()

        backend = IsolatedPgmqBackend(binding=self.binding)
        wire = Wire(
            backend,
            self.binding.channel,
            application=APPLICATION,
            join_timeout=_PATIENCE,
            receive=receive,
            on_lost=self._count_lost,
        )
        try:
            await wire.start()
            joined()
            ends = {asyncio.create_task(done.wait()), asyncio.create_task(printer.gone.wait())}
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
        finally:
            await wire.stop()
            await backend.close()
            await printer.close()
            self.skipped = printer.skipped

    def _count_lost(self, count: int) -> None:
        self.lost += count
