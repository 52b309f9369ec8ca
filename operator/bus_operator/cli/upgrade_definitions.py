"""`busctl upgrade-definitions`: what the chart runs before it is upgraded."""

import asyncio

import click

from bus_operator.errors import TransientError


@click.command("upgrade-definitions")
def upgrade_definitions() -> None:
    """Bring the resource definitions of BusDatabase and BusChannel up to date, as this version has them.

    helm upgrade runs this by itself, since Helm never upgrades definitions. One that is newer is refused; one that is
    up to date is not written. BusDatabases and BusChannels stay as they are.

    It uses the current context of the kubeconfig, or in a pod the pod's service account.
    """
    asyncio.run(_upgrade())


async def _upgrade() -> None:
    # Not above: loading the client takes a second, which the other commands do without.
    import aiohttp

    from bus_operator import definitions, kube_api

    try:
        async with kube_api.connect() as api:
            for definition in definitions.shipped():
                outcome = await definitions.upgrade(api, definition)
                click.echo(f"{definition['metadata']['name']} {outcome.value}")
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise TransientError(f"the API server cannot be reached: {exc}", reason="ApiUnavailable") from exc
