"""busctl, also installed as `kubectl bus`."""

import sys
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from bus_operator.errors import BusError
from bus_operator.texts import printable

_COMMANDS = {
    "status": "How channels are, and why one is not ready.",
    "peers": "Who has joined, how far behind, and who is stalled.",
    "top": "What goes through channels, live.",
    "tail": "Show messages as they are published.",
    "publish": "Publish a message, or the lines of a file.",
    "doctor": "What is wrong, and what to do about it.",
    "explain": "What a code means, and what to do about it.",
    "rotate": "Give a channel other credentials, without a lost message.",
    "plan": "What manifests would change, and by which statements.",
    "apply": "Make channels in a database as manifests say, without a cluster.",
    "dev": "Develop without a cluster: channels, bindings and workers on a PostgreSQL of its own.",
    "check-installation": "Whether an installation of the chart works, as helm test asks.",
    "upgrade-definitions": "Bring the resource definitions up to date.",
    "release-finalizers": "Let BusChannels be deleted without the operator.",
}
"""Each is a function of that name in a module of that name; with what the list of them says."""


class _LazyGroup(click.Group):
    """Imports a command when it is used: what one of them needs takes longer than another may last."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is that of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports it."""
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"bus_operator.cli.{name}"), name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of the commands, without importing any."""
        names = [CompletionItem(name, help=text) for name, text in _COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pgmq-bus", prog_name="busctl")
def cli() -> None:
    """Work with message buses on PostgreSQL: channels, their credentials, their bindings.

    Reading commands use the current context of the kubeconfig, or with --database a database. --help of each has
    examples.
    """


def main() -> None:
    """The console script. Exit status: 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except BusError as exc:
        click.echo(printable(f"error: {exc} [{exc.reason}]"), err=True)
        sys.exit(1)
