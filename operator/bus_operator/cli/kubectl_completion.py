"""`kubectl_complete-bus`: what kubectl runs to complete `kubectl bus`, by the same rules as `busctl`.

It is given the words behind `bus`, of which the last is unfinished, and prints an offer a line, with a tab before what
explains it. The last line says what else the shell may offer, as a sum of Cobra's directives:
https://pkg.go.dev/github.com/spf13/cobra#ShellCompDirective
"""

import sys

import click
from click.shell_completion import ShellComplete

from bus_operator.cli import cli

_DIRECTIVES = {"file": 0, "dir": 16}
"""What click leaves to the shell: any file (ShellCompDirectiveDefault), or a directory (FilterDirs)."""

_NOTHING_ELSE = 4
"""ShellCompDirectiveNoFileComp."""


def main() -> None:
    """The console script."""
    *words, unfinished = sys.argv[1:] or [""]
    offers = ShellComplete(cli, {}, "kubectl bus", "").get_completions(words, unfinished)
    for offer in offers:
        if offer.type not in _DIRECTIVES:
            explained = " ".join((offer.help or "").split())
            click.echo(f"{offer.value}\t{explained}" if explained else offer.value)
    click.echo(f":{next((_DIRECTIVES[offer.type] for offer in offers if offer.type in _DIRECTIVES), _NOTHING_ELSE)}")
