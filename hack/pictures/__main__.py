"""`make pictures`: a real PostgreSQL, channels, workers and commands; docs/images/busctl-*.svg. Takes two minutes."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import postgres

from hack.pictures.terminal import draw, show

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
BUSCTL = Path(sys.executable).parent / "busctl"

CHANNELS = "".join(
    "---\napiVersion: pgmqbus.dev/v1alpha1\nkind: BusChannel\n"
    f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    for namespace, name, spec in (
        ("shop", "orders", "{}"),
        ("shop", "invoices", "{durability: Async}"),
        ("depot", "parcels", "{retention: {maxAge: 168h}}"),
    )
)
PODS = {
    "shop-api-5d9c7b6c4-x2x8k": "shop",
    "billing-0": "billing",
    "archive-0": "archive",
    "search-6f4d8b7f9-q9zlm": "search",
}
"""By name: what each does, as worker.py has it."""

UNTIL_STALLED = 45.0
"""Seconds: a peer stalls when it was not heard of for 30."""

PICTURES = {
    "status": ["busctl status", "busctl status shop/orders"],
    "top": ["busctl top"],
    "tail": ["busctl tail shop/invoices --count 9"],
    "doctor": ["busctl doctor"],
}
"""Each with what is typed."""

LIVE = {"busctl top": 7.0}
"""What goes on until Ctrl-C, and after how many seconds that is pressed."""


def main() -> None:
    """Writes all pictures."""
    with _stage() as environment:
        time.sleep(UNTIL_STALLED)
        for name, commands in PICTURES.items():
            parts = []
            for command in commands:
                words = [str(BUSCTL), *command.split()[1:]]
                parts.append((command, show(words, environment, seconds=LIVE.get(command))))
            path = IMAGES / f"busctl-{name}.svg"
            path.write_text(draw(name, parts))
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


@contextmanager
def _stage() -> Iterator[dict[str, str]]:
    """The environment in which busctl finds a database with channels at work."""
    with postgres.running_server(18) as server, tempfile.TemporaryDirectory() as directory:
        asyncio.run(_create_database(server))
        plain = {"PATH": os.environ["PATH"], "HOME": directory, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        environment = plain | {"BUSCTL_DATABASE": server.uri("app")}
        manifests = Path(directory, "channels.yaml")
        manifests.write_text(CHANNELS)
        bindings = Path(directory, "bindings")
        subprocess.run(
            [BUSCTL, "apply", "-f", manifests, "--bindings", bindings],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        roots = sorted(path.parent for path in bindings.rglob("orders"))
        program = Path(__file__).parent / "worker.py"
        workers = [
            subprocess.Popen(
                [sys.executable, program, role], env=plain | {"SERVICE_BINDING_ROOT": str(roots[0]), "HOSTNAME": pod}
            )
            for pod, role in PODS.items()
        ]
        try:
            yield environment
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()


async def _create_database(server: postgres.Server) -> None:
    session = await server.connect()
    try:
        await session.execute("create database app")
    finally:
        await session.close()


if __name__ == "__main__":
    main()
