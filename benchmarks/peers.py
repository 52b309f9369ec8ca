"""The servers of the other systems: Redis and NATS, from Debian's packages, on loopback."""

from pathlib import Path
from typing import Self

from benchmarks.daemon import Daemon, accepts, free_port, own, program


class Redis:
    """A Redis that keeps nothing: pub/sub has nothing to keep."""

    def __init__(self, directory: Path) -> None:
        home = directory / "redis"
        home.mkdir(mode=0o755)
        own(home)
        self.port = free_port()
        self._daemon = Daemon(
            "Redis",
            [
                program("redis-server", "redis-server"),
                "--bind", "127.0.0.1", "--port", str(self.port), "--dir", home,
                "--save", "", "--appendonly", "no", "--daemonize", "no",
                # By default Redis disconnects a subscriber that is 32 MB behind, and pipecat's bus then ends its
                # reader: the benchmark lets it catch up instead.
                "--client-output-buffer-limit", "pubsub 0 0 0",
            ],
            home / "log",
            ready=lambda: accepts(self.port),
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of its only process, whose main thread does the work."""
        return self._daemon.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.stop()


class Nats:
    """NATS with JetStream, its store on the measured disk, with NATS' own default for flushing (every two minutes)."""

    def __init__(self, directory: Path) -> None:
        home = directory / "nats"
        home.mkdir(mode=0o755)
        own(home)
        self.port = free_port()
        self._daemon = Daemon(
            "NATS",
            [
                program("nats-server", "nats-server"),
                "--addr", "127.0.0.1", "--port", str(self.port), "--jetstream", "--store_dir", home / "store",
            ],
            home / "log",
            ready=lambda: accepts(self.port),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.stop()
