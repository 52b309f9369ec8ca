"""`busctl release-finalizers`: what the chart runs when it is uninstalled."""

import asyncio
import sys

import click

from bus_operator.errors import TransientError


@click.command("release-finalizers")
@click.option("-n", "--namespace", "namespaces", multiple=True, help="Only there. May be given several times.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Everywhere.")
def release_finalizers(namespaces: tuple[str, ...], all_namespaces: bool) -> None:
    """Take the operator's finalizer off all BusChannels, so that they can be deleted without it.

    For when the operator is gone: helm uninstall runs this by itself. One that is running puts its finalizer on again.
    Channels, messages and credentials in the databases stay as they are. Running it again does no harm.

    It uses the current context of the kubeconfig, or in a pod the pod's service account.
    """
    if all_namespaces == bool(namespaces):
        raise click.UsageError("give either --all-namespaces or one or more --namespace")
    seen, released, failures = asyncio.run(_release(namespaces))
    click.echo(f"{released} of {seen} BusChannels had the operator's finalizer and were released")
    if failures:
        click.echo(f"error: {failures} could not be released; run the same command again", err=True)
        sys.exit(1)


async def _release(namespaces: tuple[str, ...]) -> tuple[int, int, int]:
    """How many were seen, released, and could not be."""
    # Not above: loading the client takes a second, which the other commands do without.
    import aiohttp
    from kubernetes.aio.client.exceptions import ApiException

    from bus_operator import kube_api
    from bus_operator.kube import Kube
    from bus_operator.uninstall import FinalizerRelease

    try:
        async with kube_api.connect() as api:
            kube = Kube(api, secrets_role="", service_account=("", ""))
            result = await FinalizerRelease(api, kube, click.echo).run(namespaces)
            return result.seen, result.released, result.failures
    except ApiException as exc:
        raise TransientError(
            f"BusChannels cannot be listed: {kube_api.message_of(exc)}", reason="ApiUnavailable"
        ) from exc
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise TransientError(f"the API server cannot be reached: {exc}", reason="ApiUnavailable") from exc
