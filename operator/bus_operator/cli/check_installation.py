"""`busctl check-installation`: what `helm test` runs."""

import sys
import time

import click

from bus_operator.cli import output as out
from bus_operator.cli.doctor import show


@click.command("check-installation")
@click.option("--name", required=True, help="The operator's, as the chart calls it: of its Lease and webhook.")
@click.option("--namespace", required=True, help="Where it is.")
@click.option("--metrics", metavar="URL", help="Where its metrics are served.")
@click.option(
    "--wait",
    type=click.IntRange(0, 3600),
    default=0,
    metavar="SECONDS",
    help="How long to look again while something is wrong: an operator that has just started takes some seconds.",
)
@out.output_option("json", "yaml")
def check_installation(name: str, namespace: str, metrics: str | None, wait: int, output: out.Format | None) -> None:
    """Look whether an installation of the chart works: definitions, leader, webhook, metrics.

    helm test runs this by itself in a pod, by a service account that may read those objects and nothing else. The
    webhook is asked through its Service, trusting the authority that the API server was told, about a pod that is not
    made. Exit status 1 when something is wrong.

    \b
    Examples:
      busctl check-installation --name pgmq-bus --namespace pgmq-bus
    """
    from importlib.metadata import version

    from bus_operator import kubeconfig
    from bus_operator.cluster_client import ClusterClient
    from bus_operator.doctor import installation as checks
    from bus_operator.doctor.findings import Examined

    client = ClusterClient(kubeconfig.find(None, None))
    installation = checks.Installation(name, namespace, version("pgmq-bus"), metrics)
    deadline = time.monotonic() + wait
    while True:
        outcomes = checks.CHECKS.examine(checks.gather(client, installation))
        examined = Examined("Installation", f"{namespace}/{name}", outcomes)
        # What may not be looked at is no success here: the chart gives the rights for all of it.
        unseen = [outcome for outcome in outcomes if outcome.unseen and (outcome.title != "metrics" or metrics)]
        healthy = examined.state != "failed" and not unseen
        if healthy or time.monotonic() >= deadline:
            break
        time.sleep(1)
    if output is not None:
        out.print_data(output, {"healthy": healthy, "items": [examined.as_json]})
    else:
        show([examined])
        if unseen:
            click.echo("not everything could be looked at", err=True)
    if not healthy:
        sys.exit(1)
