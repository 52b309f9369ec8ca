"""Servers that start at once, with everything installed: copies of one that was made before."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import postgres

#: Nothing but the fault makes it slow, and what it says is on the disk is there.
_OPTIONS = ("-c", "fsync=on", "-c", "log_statement=none", "-c", "log_min_duration_statement=-1")


class Seeds:
    """Makes one for each version when it is first asked for."""

    def __init__(self) -> None:
        self._seeds: dict[int, postgres.Server] = {}

    async def server(self, version: int, disk: Path | None, environment: Mapping[str, str]) -> postgres.Server:
        """A server that runs; the caller removes it.

        Args:
            version: PostgreSQL's.
            disk: Where its data and its write-ahead log are, if not where tests have theirs. Its log stays there.
            environment: Variables for its processes.
        """
        seed = self._seeds.get(version)
        if seed is None:
            seed = self._seeds[version] = postgres.start_server(version)
            await asyncio.to_thread(postgres.create_template, seed)
            seed.stop()
        directory = postgres.server_directory(version)
        server = dataclasses.replace(
            seed, directory=directory, port=postgres.free_port(), options=_OPTIONS, environment=environment
        )
        try:
            # With its owner, which is not whoever runs this.
            subprocess.run(["cp", "-a", seed.directory / "data", disk or directory], check=True, start_new_session=True)
            if disk is not None:
                (directory / "data").symlink_to(disk / "data")
                # Shared memory is on no disk, neither here.
                shared = disk / "data" / "pg_dynshmem"
                subprocess.run(["mv", shared, directory], check=True, start_new_session=True)
                shared.symlink_to(directory / shared.name)
                # A database that was there before is on the disk.
                subprocess.run(["sync", "-f", disk], check=True)
            server.start()
        except BaseException:
            server.remove()
            raise
        return server

    def remove(self) -> None:
        """Delete them."""
        for seed in self._seeds.values():
            seed.remove()


@contextmanager
def seeds() -> Iterator[Seeds]:
    """Seeds that are gone afterwards."""
    made = Seeds()
    try:
        yield made
    finally:
        made.remove()
