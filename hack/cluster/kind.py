"""A cluster of kind (https://kind.sigs.k8s.io), where there is a Docker daemon."""

from __future__ import annotations

from pathlib import Path

from .commands import find_program, run, succeeds
from .console import ClusterError, step
from .layout import Layout
from .recipes import Recipe
from .state import State, lock

PROVIDER = "kind"


def is_possible() -> bool:
    """Return whether kind is installed and a Docker daemon answers."""
    return find_program("kind") is not None and succeeds(["docker", "info"])


class KindCluster:
    """See the module.

    Args:
        layout: where its kubeconfig is kept; its name is the cluster's.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def kubeconfig(self) -> Path:
        """The file by which clients reach it."""
        return self._layout.kubeconfig

    def up(self) -> None:
        """Have it run."""
        if not is_possible():
            raise ClusterError("CLUSTER=kind takes kind on PATH and a Docker daemon that answers (`docker info`)")
        with lock(self._layout, self._layout.name):
            State(PROVIDER).save(self._layout)
            if self._exists():
                run(["kind", "export", "kubeconfig", *self._named()])
                return
            with step(f"making the kind cluster {self._layout.name}", "a minute"):
                run(["kind", "create", "cluster", "--wait", "3m", *self._named()])

    def down(self) -> None:
        """Delete it."""
        with lock(self._layout, self._layout.name):
            run(["kind", "delete", "cluster", *self._named()])
            self.kubeconfig.unlink(missing_ok=True)
            (self._layout.state / "cluster.json").unlink()

    def problems(self) -> list[str]:
        """Return what is wrong with it, nothing when all is well."""
        return [] if self._exists() else [f"there is no kind cluster {self._layout.name}"]

    def load(self, recipe: Recipe) -> str:
        """Build an image with Docker, put it on the node and return its full name."""
        with step(f"building {recipe.moving}"):
            run(["docker", "build", "--tag", recipe.moving, "--file", str(recipe.dockerfile), str(recipe.context)])
        identifier = run(["docker", "image", "inspect", "--format", "{{.Id}}", recipe.moving]).strip()
        reference = recipe.reference(identifier.removeprefix("sha256:"))
        run(["docker", "tag", recipe.moving, reference])
        with step(f"loading {reference}"):
            run(["kind", "load", "docker-image", reference, recipe.moving, "--name", self._layout.name])
        return reference

    def _exists(self) -> bool:
        return self._layout.name in run(["kind", "get", "clusters"]).split()

    def _named(self) -> list[str]:
        return ["--name", self._layout.name, "--kubeconfig", str(self.kubeconfig)]
