"""The reference of busctl: what `--help` prints, of every command."""

from collections.abc import Iterator

import click

from bus_operator.cli import cli

_WIDTH = 100


def page() -> str:
    """The page about all commands."""
    lines = ["# busctl", "", "Also installed as `kubectl-bus`, so that `kubectl bus` works. What `--help` prints:", ""]
    for name, text in helps():
        lines += [f"## {name}", "", "```text", text, "```", ""]
    return "\n".join(lines)


def helps() -> Iterator[tuple[str, str]]:
    """Name and help of each command, as a user types it; the program's own first."""
    return _helps(cli, None, "busctl")


def _helps(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, str]]:
    context = click.Context(command, parent=parent, info_name=name, terminal_width=_WIDTH)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from _helps(found, context, below)
