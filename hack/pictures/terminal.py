"""Runs a program in a terminal of its own, and draws what it showed."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from io import StringIO

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

WIDTH = 112
HEIGHT = 24
TIMEOUT = 90.0

_HOME = b"\x1b[H"
"""Where a program that draws the screen anew begins."""

_COLOURS = [
    (72, 79, 88), (240, 113, 120), (126, 211, 133), (240, 198, 116),
    (110, 168, 254), (203, 166, 247), (108, 209, 216), (222, 226, 232),
]  # fmt: skip
THEME = TerminalTheme((27, 31, 38), (222, 226, 232), _COLOURS, [(139, 148, 158), *_COLOURS[1:]])
"""Light on dark, for pages of both kinds."""

_FORMAT = """\
<svg role="img" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre;
}}
.{unique_id}-title {{ font-family: sans-serif; font-size: 16px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own without fonts from elsewhere; each text has its length, so that columns stand in any fixed-width font."""


def show(command: Sequence[str], environment: Mapping[str, str], *, seconds: float | None = None) -> str:
    """What the program wrote, with its colours; after `seconds` Ctrl-C is pressed, and it is the last whole screen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    begun = time.monotonic()
    interrupted = False
    try:
        while (passed := time.monotonic() - begun) < TIMEOUT:
            if seconds is not None and passed > seconds and not interrupted:
                process.send_signal(signal.SIGINT)
                interrupted = True
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # the program has ended
                    break
                shown += part
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    if seconds is not None:
        # What comes after the last one is the way out.
        shown = shown.split(_HOME)[-2]
    return shown.decode().replace("\r\n", "\n").rstrip()


def draw(name: str, parts: Sequence[tuple[str, str]]) -> str:
    """The picture, as SVG, of commands and what each of them showed."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    for number, (command, shown) in enumerate(parts):
        console.print(Text.assemble("" if number == 0 else "\n", ("$ ", "dim"), (command, "bold")))
        console.print(Text.from_ansi(shown), soft_wrap=False)
    # The identifier, or else it would be another one with each run.
    return console.export_svg(title=f"busctl {name}", theme=THEME, code_format=_FORMAT, unique_id=f"busctl-{name}")
