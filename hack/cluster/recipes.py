"""The images that this project builds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .buildah import IMAGES
from .console import ClusterError
from .layout import REPOSITORY

REGISTRY = "localhost"


@dataclass(frozen=True)
class Recipe:
    """How an image is built.

    Attributes:
        name: its name without registry and tag.
        context: the directory that its Dockerfile copies from.
        dockerfile: the file itself.
    """

    name: str
    context: Path
    dockerfile: Path

    @property
    def moving(self) -> str:
        """The full name that always means the last one built."""
        return f"{REGISTRY}/{self.name}:dev"

    def reference(self, identifier: str) -> str:
        """Return the full name of one build, which changes with its content and so makes Deployments roll."""
        return f"{REGISTRY}/{self.name}:{identifier[:12]}"


RECIPES = {
    "project": Recipe("pgmq-bus", REPOSITORY, REPOSITORY / "Dockerfile"),
    "postgres": Recipe("pgmq-bus-postgres", IMAGES / "postgres", IMAGES / "postgres" / "Dockerfile"),
}


def recipe(what: str, name: str | None, dockerfile: Path | None) -> Recipe:
    """Return the recipe that a user means.

    Args:
        what: a key of `RECIPES`, or the directory to build from.
        name: the image's name, where it is not one of `RECIPES`.
        dockerfile: where it is not `Dockerfile` in that directory.

    Raises:
        ClusterError: there is no such directory, or it comes without a name.
    """
    if what in RECIPES:
        return RECIPES[what]
    context = Path(what).resolve()
    if not context.is_dir():
        raise ClusterError(f"{what!r} is neither a directory nor one of {', '.join(RECIPES)}")
    if not name:
        raise ClusterError(f"what shall the image of {what} be called? Give --image-name")
    return Recipe(name, context, dockerfile or context / "Dockerfile")
