"""How commands show what they found: tables for people, JSON and YAML for programs, names for `xargs`.

Data goes to standard output, talk to standard error. A line of a table is never wrapped: who looks for a name finds it.
"""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import click

from bus_operator.texts import escaped_json, printable

_Command = TypeVar("_Command", bound=Callable[..., Any])
Format = Literal["table", "wide", "json", "yaml", "name"]

Style = Literal["", "bold", "dim", "red", "green", "yellow"]
_CODES: dict[Style, str] = {"": "", "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_GAP = 3
"""Spaces between columns."""

_UNBROKEN = re.compile(r"kubectl exec .*|\S+ *| +")
"""A word, or a command to paste: that is left to the terminal, which remembers that it is one line."""


def style_of(status: str) -> Style:
    """The colour of a condition's status."""
    return "green" if status == "True" else "red" if status == "False" else "yellow"


def output_option(*formats: Format) -> Callable[[_Command], _Command]:
    """The option -o with these formats besides a table; the command is given `output`."""
    return click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(formats),
        default=None,
        help=f"Print {', '.join(formats)} instead of the usual table.",
    )


def print_data(output: Format | None, value: Any) -> None:
    """Prints what programs read, as JSON or YAML."""
    if output == "json":
        click.echo(escaped_json(json.dumps(value, indent=2, ensure_ascii=False)))
        return
    import yaml

    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000), nl=False)


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    right: bool = False
    """Numbers stand on the right."""
    wide: bool = False
    """Whether it is only there with -o wide."""


Cell = str | tuple[str, Style] | int | float | None
"""A text, a text with a style, a number, or nothing."""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, wide: bool = False) -> None:
    """Prints a table, as wide as it has to be, coloured where that is a terminal and NO_COLOR is not set."""
    print_lines(table_lines(columns, rows, wide=wide))


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines that hold their colours already."""
    click.echo("".join(f"{line}\n" for line in lines), nl=False, color=is_coloured())


def is_coloured() -> bool:
    """Whether standard output takes colours, and the user wants them (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_line(text: str, style: Style) -> None:
    """Prints a line in a style."""
    print_lines([_styled(_Text(printable(text), style))])


def print_pieces(*pieces: str | tuple[str, Style], indent: int = 0) -> None:
    """Prints a line that is made of pieces, each in a style of its own.

    Args:
        pieces: In their order.
        indent: In a terminal that is too narrow for it, how far further lines begin from the left.
    """
    texts = [_text(piece) for piece in pieces]
    lines = _wrapped(texts, shutil.get_terminal_size().columns, indent) if sys.stdout.isatty() else [texts]
    print_lines("".join(map(_styled, line)).rstrip() for line in lines)


def print_facts(facts: Iterable[tuple[str, Cell]]) -> None:
    """Prints what there is to say about one thing, a line each."""
    rows = [(_Text(f"{title}:", "bold"), _text(value)) for title, value in facts]
    width = max(len(title.plain) for title, _ in rows)
    print_lines(f"{_padded(title, width)}  {_styled(value)}".rstrip() for title, value in rows)


def table_lines(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, wide: bool = False) -> list[str]:
    """The lines of a table, without spaces at their ends."""
    shown = [index for index, column in enumerate(columns) if wide or not column.wide]
    grid = [[_Text(columns[index].title, "bold") for index in shown]]
    grid += [[_text(row[index]) for index in shown] for row in rows]
    widths = [max(_width(line[place].plain) for line in grid) for place in range(len(shown))]
    rights = [columns[index].right for index in shown]
    return [(" " * _GAP).join(map(_padded, line, widths, rights)).rstrip() for line in grid]


class _Text(NamedTuple):
    plain: str
    style: Style = ""


def _text(cell: Cell) -> _Text:
    match cell:
        case None:
            return _Text("-", "dim")
        case (text, style):
            return _Text(printable(text), style)
    return _Text(printable(str(cell)))


def _wrapped(texts: Iterable[_Text], columns: int, indent: int) -> list[list[_Text]]:
    """Lines that fit, broken at spaces."""
    lines: list[list[_Text]] = [[]]
    used = 0
    for text, style in texts:
        for word in _UNBROKEN.findall(text):
            if used + _width(word.rstrip()) > columns and used > indent:
                lines.append([_Text(" " * indent)])
                used = indent
            lines[-1].append(_Text(word, style))
            used += _width(word)
    return lines


def _padded(text: _Text, width: int, right: bool = False) -> str:
    space = " " * (width - _width(text.plain))
    return space + _styled(text) if right else _styled(text) + space


def _styled(text: _Text) -> str:
    code = _CODES[text.style]
    return f"\x1b[{code}m{text.plain}\x1b[0m" if code and is_coloured() else text.plain


def _width(text: str) -> int:
    """Columns on a screen."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def show_live(lines: Callable[[int], list[str]], interval: float) -> None:
    """Shows what `lines` gives for the screen's height, again and again, until Ctrl-C, which is the way to end it."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    screen = Console(highlight=False, markup=False, emoji=False)
    try:
        with Live(console=screen, screen=True, auto_refresh=False) as live:
            while True:
                frame = Text.from_ansi("\n".join(lines(screen.height)), no_wrap=True, overflow="crop")
                live.update(frame, refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return
