"""`busctl explain`: what a code means, and what to do about it."""

import shutil
import sys
import textwrap
from difflib import get_close_matches
from typing import ClassVar

import click

from bus_operator.cli import output as out
from bus_operator.explanations import Explanation, explanations


def _codes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [code for code in explanations() if code.lower().startswith(incomplete.lower())]


@click.command()
@click.argument("code", required=False, shell_complete=_codes)
def explain(code: str | None) -> None:
    """Say what a code means, and what to do about it.

    Conditions, Events, the operator's log and metrics, exceptions of bus_runtime and busctl itself have the same
    codes. What is in capitals in a command is yours to fill in. Without CODE all are listed. Neither a cluster nor
    a database is asked. Exit status 2 when there is no such code.

    \b
    Examples:
      busctl explain SecretNotFound
      busctl explain | grep -i certificate
      kubectl exec -n pgmq-bus deploy/pgmq-bus -- busctl explain SchemaBusy
    """
    if code is None:
        _list()
        return
    explanation = _found(code)
    if sys.stdout.isatty():
        _render(explanation)
    else:
        click.echo(f"# {explanation.code}\n\n{explanation.text}")


def _found(code: str) -> Explanation:
    """Whether upper or lower case is used is of no importance."""
    known = {name.lower(): explanation for name, explanation in explanations().items()}
    if code.lower() in known:
        return known[code.lower()]
    close = [known[name].code for name in get_close_matches(code.lower(), known)]
    meant = f"is it {' or '.join(close)}?" if close else "busctl explain lists those there are"
    raise click.UsageError(f"there is no code {code!r}: {meant}")


def _list() -> None:
    longest = max(map(len, explanations()))
    room = max(shutil.get_terminal_size().columns - longest - 3, 20) if sys.stdout.isatty() else 1000
    rows = [
        (name, textwrap.shorten(explanation.summary.replace("`", ""), room, placeholder=" …"))
        for name, explanation in explanations().items()
    ]
    out.print_table((out.Column("CODE"), out.Column("MEANS")), rows)


def _render(explanation: Explanation) -> None:
    """In a terminal."""
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import CodeBlock, Markdown
    from rich.text import Text
    from rich.theme import Theme

    class Unwrapped(CodeBlock):
        """A command in one piece, so that it can be copied: the terminal remembers that it is one line."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            yield Text(textwrap.indent(str(self.text).rstrip(), "    "), "cyan", no_wrap=True, overflow="ignore")

    class Page(Markdown):
        elements: ClassVar = {**Markdown.elements, "fence": Unwrapped}

    out.print_line(explanation.code, "bold")
    console = Console(highlight=False, theme=Theme({"markdown.code": "cyan"}))
    console.print(Page(explanation.text, hyperlinks=False), crop=False)
