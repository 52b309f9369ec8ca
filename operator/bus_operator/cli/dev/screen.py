"""What `busctl dev` shows: its own words, what the workers print, and the messages that pass; a column says who."""

import os
import shutil
import sys
from datetime import datetime
from itertools import count
from typing import TextIO

import click

from bus_operator.cli.messages import Message
from bus_operator.cli.printing import Printer

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")

_WIDTH = 200
"""Characters of a message where the output is no terminal."""


class Screen:
    """Prints lines. Made within a running loop; `close` at the end.

    Args:
        names: What may stand in the first column.
        stream: Where to.
    """

    def __init__(self, names: list[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()
        self._coloured = self._is_terminal and not os.environ.get("NO_COLOR")
        self._width = max(map(len, ("busctl", *names)))
        self._colours: dict[str, str] = {}
        self._next = count()
        self.printer = Printer(self._stream, skipped=self._skipped)

    def talk(self, text: str, *, failed: bool = False) -> None:
        """Busctl's own words."""
        for line in text.splitlines():
            self._now(
                self._prefix("busctl", "│", "red" if failed else None) + (self._in(line, "red") if failed else line)
            )

    def event(self, name: str, text: str) -> None:
        """What happened to a worker."""
        self._now(self._prefix(name, "│", self._colour(name)) + self._in(text, "bright_black"))

    async def output(self, name: str, line: str, is_error: bool) -> None:
        """What a worker printed; it waits for a terminal that is slow, and with it the worker."""
        await self.printer.put(self._prefix(name, "│" if not is_error else "┃", self._colour(name)) + line)

    def message(self, channel: str, message: Message) -> None:
        """A message that passed; left out where the terminal is too slow."""
        now = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
        head = " ".join(part for part in (now, f"#{message.id}", message.short_type, message.route) if part)
        width = _WIDTH
        if self._is_terminal:
            width = max(shutil.get_terminal_size().columns - self._width - 3 - len(head) - 1, 20)
        text = f"{self._in(head, 'bright_white')} {message.shortened(width)}"
        self.printer.offer(self._prefix(channel, "▸", "bright_black") + text)

    async def close(self) -> None:
        """Prints what waits."""
        await self.printer.close()

    def _now(self, line: str) -> None:
        """Never left out for lack of room: there are few of them."""
        self.printer.offer(line, always=True)

    def _skipped(self, missing: int) -> str:
        return (
            self._prefix("busctl", "│", None)
            + f"… {missing} messages are not shown: this terminal is slower than they are"
        )

    def _prefix(self, name: str, bar: str, colour: str | None) -> str:
        return self._in(f"{name:<{self._width}} {bar} ", colour)

    def _colour(self, name: str) -> str:
        if name not in self._colours:
            self._colours[name] = _COLOURS[next(self._next) % len(_COLOURS)]
        return self._colours[name]

    def _in(self, text: str, colour: str | None) -> str:
        return click.style(text, fg=colour) if self._coloured and colour else text
