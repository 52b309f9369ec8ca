"""The command line: ``python3 -m hack.cluster --help``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import binaries
from .console import ClusterError, duration, say
from .layout import DEFAULT_NAME, Layout, cache_directory
from .providers import PROVIDERS, VARIABLE, choose
from .recipes import RECIPES, recipe
from .state import lock

EPILOG = f"""\
The environment variable {VARIABLE} chooses the kind of cluster ({", ".join(PROVIDERS)}). Unset, it is kind where a
Docker daemon answers and kind is installed, else one of our own, which takes root, and Go once. The cluster of the
current kubeconfig context is used with {VARIABLE}=current alone. The Kubernetes binary and the images are kept in
{cache_directory()}; once no cluster is up, that directory may be deleted.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m hack.cluster", description="A real Kubernetes on this machine.", epilog=EPILOG
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default=DEFAULT_NAME, help="the cluster's name (%(default)s)")

    up = commands.add_parser("up", parents=[named], help="start it, or repair what is broken")
    up.add_argument("--control-plane-only", action="store_true", help="an API server without a node; takes no root")
    commands.add_parser("down", parents=[named], help="end it and leave nothing running; images stay cached")
    commands.add_parser("status", parents=[named], help="say what is wrong; exit status 1 when something is")
    commands.add_parser("kubeconfig", parents=[named], help="print the path of the file by which clients reach it")
    load = commands.add_parser("load-image", parents=[named], help="build an image, put it on the node, print its name")
    load.add_argument(
        "what", nargs="?", default="project", help=f"{', '.join(RECIPES)}, or a directory to build (%(default)s)"
    )
    load.add_argument("--image-name", help="the name of the image built from a directory")
    load.add_argument("--file", type=Path, help="its Dockerfile (Dockerfile in the directory)")
    commands.add_parser("build", parents=[named], help="build the Kubernetes binary without starting anything")
    return parser


def main() -> int:
    """Run one command and return its exit status."""
    given = _parser().parse_args()
    layout = Layout.of(given.name)
    started = time.monotonic()
    if given.command == "build":
        with lock(layout, "_build"):
            print(binaries.kubernetes_binary(layout))
        return 0
    cluster = choose(layout, getattr(given, "control_plane_only", False))
    match given.command:
        case "up":
            cluster.up()
            say(f"cluster {layout.name} is up after {duration(time.monotonic() - started)}")
            say(f"    export KUBECONFIG={cluster.kubeconfig}")
        case "down":
            cluster.down()
        case "status":
            problems = cluster.problems()
            print("\n".join(problems) or f"cluster {layout.name} is up")
            return 1 if problems else 0
        case "kubeconfig":
            print(cluster.kubeconfig)
        case "load-image":
            print(cluster.load(recipe(given.what, given.image_name, given.file)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClusterError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; run `down` to remove what was started")
        sys.exit(130)
