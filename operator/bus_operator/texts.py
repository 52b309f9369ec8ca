"""Text that others have chosen, on its way to a terminal: peers, servers and pods may call themselves anything."""

import re

_COMMANDS = re.compile("[\x7f-\x9f]")
"""What JSON writes as it is, and terminals may take for commands: DEL, and C1, where CSI is a single character."""


def printable(text: str) -> str:
    """The text without what would command a terminal."""
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    )


def escaped(text: str) -> str:
    """The text in one line, with what would command a terminal as Python writes it: `\\x1b`, `\\n`."""
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    )


def escaped_json(text: str) -> str:
    """The same JSON with the rest of what would command a terminal as escapes."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
