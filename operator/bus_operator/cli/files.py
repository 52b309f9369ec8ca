"""The option for files with manifests, as kubectl has it."""

from collections.abc import Callable
from typing import Any

import click


def files_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """-f, which gives a command the open `files`; `what` is in them."""
    return click.option(
        "-f",
        "--filename",
        "files",
        type=click.File(encoding="utf-8"),
        multiple=True,
        required=True,
        help=f"File with {what}; - reads standard input. May be given several times.",
    )
