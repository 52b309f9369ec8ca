"""Where a command reads: the cluster of a kubeconfig's context, or a database by its URI.

Every reading command has the same options for that, says on standard error which one it is on, and is given a `Source`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from bus_operator.cluster_client import ClusterClient
    from bus_operator.database import AdminConnection


@dataclass(frozen=True)
class ClusterSource:
    """BusChannels and their statuses, with the caller's own rights."""

    client: "ClusterClient" = field(repr=False)
    namespace: str | None
    """None: all namespaces."""

    def key_of(self, channel: str) -> tuple[str, str]:
        """Namespace and name of a BusChannel that the user calls `name` or `namespace/name`."""
        namespace, _, name = channel.rpartition("/")
        if namespace or self.namespace:
            return namespace or str(self.namespace), name
        raise click.UsageError(f"--all-namespaces names no BusChannel: write namespace/{name}, or use --namespace")

    def __str__(self) -> str:
        within = f"namespace {self.namespace}" if self.namespace else "all namespaces"
        return f"{self.client.access.title}, {within}"


@dataclass(frozen=True)
class DatabaseSource:
    """The registry in a database."""

    admin: "AdminConnection"
    namespace: str = "default"
    """That of manifests that name none."""

    def __str__(self) -> str:
        endpoint = self.admin.endpoint
        return f"database {endpoint.database} on {endpoint.host}:{endpoint.port}"


Source = ClusterSource | DatabaseSource

_CLUSTER_OPTIONS = ("kubeconfig", "context")
_NAMESPACE_OPTIONS = ("namespace", "everywhere")
_CLUSTER_WORDS = {"kubeconfig": "--kubeconfig", "context": "--context", "namespace": "-n", "everywhere": "-A"}


def source_options(
    *,
    all_namespaces: bool = True,
    reads: bool = True,
    unless: Callable[[Mapping[str, Any], bool], bool] | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Gives a command the options that say where to read, and the result as `source`.

    Args:
        all_namespaces: Whether it has -A.
        reads: Whether a namespace is one to read in, and so of a cluster; else it is that of manifests that name none.
        unless: Asked with the command's other options, and whether a source was chosen; where it says yes the command
            does without one, and `source` is None.
    """

    def decorate(command: Callable[..., Any]) -> Any:
        @wraps(command)
        def run(
            *args: Any,
            database: str | None,
            kubeconfig: str | None,
            context: str | None,
            namespace: str | None,
            everywhere: bool = False,
            **options: Any,
        ) -> Any:
            of_clusters = [*_CLUSTER_OPTIONS, *(_NAMESPACE_OPTIONS if reads else ())]
            uri = _database(database, of_clusters)
            if unless is not None and unless(options, uri is not None or bool(_asked(of_clusters))):
                return command(*args, source=None, **options)
            source = open_source(uri, kubeconfig, context, namespace, everywhere=everywhere)
            if isinstance(source, ClusterSource):
                from bus_operator.cli.typed import typed_in

                source.client.typed = typed_in(source.namespace)
            click.echo(f"on {source}", err=True)
            return command(*args, source=source, **options)

        for option in reversed(_options(all_namespaces=all_namespaces, reads=reads)):
            run = option(run)
        return run

    return decorate


def _options(*, all_namespaces: bool, reads: bool) -> list[Callable[..., Any]]:
    namespace = "Namespace in the cluster; by default the context's."
    if not reads:
        namespace = "Namespace of manifests that name none; by default the context's, with --database: default."
    options = [
        click.option("-n", "--namespace", help=namespace),
        click.option("--context", help="The kubeconfig's context; by default the current one."),
        click.option(
            "--kubeconfig",
            type=click.Path(dir_okay=False),
            help="The kubeconfig; by default as kubectl finds it. In a pod without one: the pod's service account.",
        ),
        click.option(
            "--database",
            metavar="URI",
            envvar="BUSCTL_DATABASE",
            show_envvar=True,
            help="Read a database instead of a cluster: an administrator's URI. Prefer the environment variable where"
            " others can list processes.",
        ),
    ]
    if all_namespaces:
        everywhere = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="All namespaces.")
        options.insert(1, everywhere)
    return options


def _database(uri: str | None, of_clusters: Sequence[str]) -> str | None:
    """The URI, unless it is only the environment's and the command line asks for a cluster."""
    asked = _asked(of_clusters)
    if uri is None or not asked:
        return uri
    if _is_given(click.get_current_context(), "database"):
        raise click.UsageError(f"--database reads a database, {asked[0]} a cluster: give one of them")
    return None


def _asked(of_clusters: Sequence[str]) -> list[str]:
    """The options on the command line that ask for a cluster."""
    context = click.get_current_context()
    return [_CLUSTER_WORDS[name] for name in of_clusters if _is_given(context, name)]


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def open_source(
    uri: str | None, kubeconfig: str | None, context: str | None, namespace: str | None, *, everywhere: bool = False
) -> Source:
    """Finds what is meant; connects to nothing yet.

    Raises:
        SpecError: When it cannot be found, or the URI is none.
    """
    if uri is not None:
        from bus_operator.database import AdminConnection

        return DatabaseSource(AdminConnection.from_uri(uri), namespace or "default")
    if namespace is not None and everywhere:
        raise click.UsageError("give either --namespace or --all-namespaces")
    from bus_operator import kubeconfig as kubeconfigs
    from bus_operator.cluster_client import ClusterClient

    access = kubeconfigs.find(kubeconfig, context)
    return ClusterSource(ClusterClient(access), None if everywhere else namespace or access.namespace)
