"""The cluster of the current kubeconfig context, which the user chose and which is not ours to start or end."""

from __future__ import annotations

import os
from pathlib import Path

from .commands import find_program, run, succeeds
from .console import ClusterError, say
from .recipes import Recipe

PROVIDER = "current"


class CurrentCluster:
    """See the module."""

    @property
    def kubeconfig(self) -> Path:
        """The file that kubectl would take."""
        first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        return Path(first) if first else Path.home() / ".kube" / "config"

    def up(self) -> None:
        """See that it answers."""
        if find_program("kubectl") is None:
            raise ClusterError("CLUSTER=current takes kubectl: install it (https://kubernetes.io/docs/tasks/tools)")
        if not succeeds(["kubectl", "config", "current-context"]):
            raise ClusterError(
                "CLUSTER=current takes a kubeconfig with a current context: kubectl config use-context NAME, or"
                " KUBECONFIG=FILE"
            )
        context = run(["kubectl", "config", "current-context"]).strip()
        if problems := self.problems():
            raise ClusterError(f"context {context}: {problems[0]}")
        say(f"using context {context}")

    def down(self) -> None:
        """Leave it alone."""
        say("CLUSTER=current: the cluster is yours and is left as it is")

    def problems(self) -> list[str]:
        """Return what is wrong with it, nothing when all is well."""
        return [] if succeeds(["kubectl", "get", "--raw", "/readyz"]) else ["the API server does not serve"]

    def load(self, recipe: Recipe) -> str:
        """Refuse: where the cluster's nodes take images from is not known here."""
        raise ClusterError(
            f"CLUSTER=current: build and push {recipe.name} yourself (docker build --tag REGISTRY/{recipe.name} "
            f"--file {recipe.dockerfile} {recipe.context}) and install the chart with that image"
        )
