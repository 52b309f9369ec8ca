"""busctl, also installed as `kubectl bus`."""

import sys

import click

from bus_operator.cli.apply import apply
from bus_operator.cli.dev import dev
from bus_operator.cli.release_finalizers import release_finalizers
from bus_operator.cli.upgrade_definitions import upgrade_definitions
from bus_operator.errors import BusError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pgmq-bus", prog_name="busctl")
def cli() -> None:
    """Work with message buses on PostgreSQL: channels, their credentials, their bindings."""


cli.add_command(apply)
cli.add_command(dev)
cli.add_command(upgrade_definitions)
cli.add_command(release_finalizers)


def main() -> None:
    """The console script. Exit status: 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.exceptions.Abort:
        click.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except BusError as exc:
        click.echo(f"error: {exc} [{exc.reason}]", err=True)
        sys.exit(1)
