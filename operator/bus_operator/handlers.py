"""The kopf handlers: each only wakes the controller. What has to be done is the reconciler's business."""

import itertools
from typing import Any

import kopf

from bus_operator.canary import Canary
from bus_operator.controller import Controller
from bus_operator.kube import PLURALS
from bus_operator.model import GROUP, VERSION

RECONNECT = 2.0
"""Seconds between attempts to watch an API server that does not serve, for ever. kopf's own come later and later, up to
21 s after the server is back; and when they have failed for 54 s they end, and the process with them."""

SMALL_PAGE = 20
"""Objects of a list that fit into the memory however large they are. Users may write 1.5 MB into each, and to read a
page takes several times its size."""

CONNECT_TIMEOUT = 5.0
"""Seconds until an address that does not answer is tried again; kopf waits five minutes."""


def register(registry: kopf.OperatorRegistry, controller: Controller, canary: Canary) -> None:
    """Registers the watches of both resources, and how to log in to the API server."""

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURALS["BusDatabase"], registry=registry)
    @kopf.on.event(GROUP, VERSION, PLURALS["BusChannel"], registry=registry)
    async def observe(event: kopf.RawEvent, **_: Any) -> None:
        canary.hear(event["object"])
        controller.observe(event["type"], event["object"])


def settings(page_size: int) -> kopf.OperatorSettings:
    """Kopf's settings for an operator that only wants events: nothing is written to resources, no CRD is watched.

    Args:
        page_size: How many objects of a list to read at a time, as another list found it to be possible: kopf tells of
            no event before its list has ended, and a busy API server takes a second or two for each page.
    """
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    # Memory, at thousands of resources: a list comes page by page, and the worker that kopf gives to each of them for
    # an event ends at once, for all that it does is to wake.
    chosen.watching.chunk_size = max(page_size, SMALL_PAGE)
    chosen.queueing.worker_limit = 100
    chosen.queueing.idle_timeout = 0.1
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 330
    chosen.networking.connect_timeout = CONNECT_TIMEOUT
    chosen.networking.error_backoffs = itertools.repeat(RECONNECT)
    return chosen
