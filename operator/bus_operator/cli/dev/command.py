"""`busctl dev`: the options."""

import asyncio
import sys
from pathlib import Path

import click

FOLDER = ".busctl"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "-f",
    "--filename",
    "paths",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="File with BusChannel manifests, or a folder of such files; default: the current folder. May be given several"
    " times.",
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of manifests that name none.")
@click.option(
    "--worker", "workers", multiple=True, metavar="COMMAND", help="A command to run; may be given several times."
)
@click.option(
    "--reload", is_flag=True, help="Start the workers anew when a Python file below the current folder changes."
)
@click.option("--keep", is_flag=True, help="Keep channels and messages in .busctl for the next run with --keep.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show the messages that pass.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker has to end by itself; then it gets SIGTERM, and SIGKILL after half as long again.",
)
@click.option(
    "--postgres",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="BUSCTL_POSTGRES",
    show_envvar=True,
    help="The directory of initdb and postgres, 15 or later; default: those of pgmq-bus[dev], else of the PATH.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def dev(
    *,
    paths: tuple[Path, ...],
    namespace: str,
    workers: tuple[str, ...],
    reload: bool,
    keep: bool,
    quiet: bool,
    grace: float,
    postgres: Path | None,
    command: tuple[str, ...],
) -> None:
    """Develop without a cluster: a PostgreSQL of its own, the channels of your manifests, and your workers under it.

    Workers find their bindings as in a pod. The messages that pass are shown between what the workers print. Manifests
    that change are applied again at once. Ctrl-C ends the workers, then the server; a second one does not wait.

    A single command after -- gives busctl its exit status, so that tests can be run this way; of several, 1 if any
    failed. 0 when it was ended by Ctrl-C or SIGTERM; 1 when what is needed cannot be started.

    \b
    Examples:
      busctl dev -f bus.yaml -- python worker.py
      busctl dev --worker 'python shop.py' --worker 'python billing.py' --reload
      busctl dev -f manifests/ --quiet -- pytest
      busctl dev                            # server and channels only; the workers are started elsewhere
    """
    # Not above: loading all of this takes a while, which the other commands do without.
    from bus_operator.cli.dev import files, programs, session, workspace
    from bus_operator.cli.dev.workers import commands
    from bus_operator.texts import printable

    wanted = paths or (Path(),)
    settings = session.Settings(
        manifests=wanted,
        namespace=namespace,
        commands=tuple(commands(workers, command)),
        programs=programs.find(postgres),
        reload=reload,
        quiet=quiet,
        grace=grace,
    )
    found = files.manifests(wanted, namespace)
    for database in found.databases:
        click.echo(printable(f"of {database.where} only spec.shards is used: the server is busctl dev's own"), err=True)
    for what in found.skipped:
        click.echo(printable(f"{what} is left out: busctl dev makes channels only"), err=True)
    with workspace.opened(Path(FOLDER).absolute(), keep=keep) as space:
        status = asyncio.run(session.run(settings, space, found))
    sys.exit(status)
