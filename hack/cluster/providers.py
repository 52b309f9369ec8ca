"""Which kind of cluster to use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from . import current, kind, local
from .console import ClusterError
from .layout import Layout
from .recipes import Recipe
from .state import State

VARIABLE = "CLUSTER"
PROVIDERS = (local.PROVIDER, kind.PROVIDER, current.PROVIDER)


class Cluster(Protocol):
    """What every kind of cluster can do."""

    @property
    def kubeconfig(self) -> Path:
        """The file by which clients reach it."""

    def up(self) -> None:
        """Have it run: start it, repair it, or find that there is nothing to do."""

    def down(self) -> None:
        """End it and leave nothing running."""

    def problems(self) -> list[str]:
        """Return what is wrong with it, nothing when all is well."""

    def load(self, recipe: Recipe) -> str:
        """Build an image, have the cluster's nodes hold it, and return its full name."""


def choose(layout: Layout, control_plane_only: bool = False) -> Cluster:
    """Return the cluster to use: the one that is there, else the one asked for, else the easiest to be had.

    Args:
        layout: whose name and directories it gets.
        control_plane_only: whether an API server without a node is wanted, which is always our own.

    Raises:
        ClusterError: the environment asks for a kind of cluster that there is not.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", *PROVIDERS):
        raise ClusterError(f"{VARIABLE}={asked}: choose one of {', '.join(PROVIDERS)}, or leave it unset")
    state = State.load(layout)
    if control_plane_only:
        return local.LocalCluster(layout, with_node=False)
    # A context is never taken by itself: what is done to a cluster is for its owner to allow.
    if asked == current.PROVIDER:
        return current.CurrentCluster()
    provider = state.provider if state else asked or (kind.PROVIDER if kind.is_possible() else local.PROVIDER)
    if asked and provider != asked:
        raise ClusterError(f"cluster {layout.name} is there as {provider}, not {asked}: run `down` first")
    return kind.KindCluster(layout) if provider == kind.PROVIDER else local.LocalCluster(layout)
