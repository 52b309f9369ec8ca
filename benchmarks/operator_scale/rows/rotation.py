"""Credentials that are replaced again and again while eight processes exchange a thousand messages a second."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane import ROOT, wait_until
from operator_world import Ref, World
from projected import kubelets

from benchmarks.operator_scale.figures import Figure
from benchmarks.operator_scale.world import ScaleWorld
from benchmarks.statistics import percentile

ROTATIONS, PEERS, RATE = 20, 8, 1000.0

UNUSED_SECONDS = "2"
"""How long nobody must be seen to use a login; by default two minutes, because a kubelet takes that long to bring a
Secret into its pods. Here it takes a second."""

_KUBELET_SECONDS = 1.0
_LIMIT = 90.0


@dataclass(frozen=True)
class Outcome:
    """What became of the messages, over all peers, and how long rotations took until the login of before had ended."""

    seconds: float
    published: int
    failed: int
    lost: int
    again: int
    dropped: int
    longest: float
    rotations: Sequence[float]


def measure(world: ScaleWorld) -> list[Figure]:
    """On a database of its own; the operator is restarted for it and afterwards."""
    world.operator.terminate()
    world.operator.start(BUS_CREDENTIAL_UNUSED_SECONDS=UNUSED_SECONDS)
    try:
        found = rotate_under_load(world.world, rotations=ROTATIONS, peers=PEERS, rate=RATE)
    finally:
        world.operator.terminate()
        world.operator.start()
    return [
        Figure(f"failed publishes, {ROTATIONS} rotations", found.failed, "", goal=0),
        Figure("messages lost", found.lost, "", goal=0),
        Figure("messages delivered twice", found.again, "", goal=0),
        Figure("subscriptions dropped", found.dropped, "", goal=0),
        Figure("messages published meanwhile", found.published, ""),
        Figure("messages published per second", found.published / found.seconds, "/s"),
        Figure("longest publish", found.longest, "s"),
        Figure("rotation until the login before has ended, p50", percentile(sorted(found.rotations), 0.5), "s"),
    ]


def rotate_under_load(world: World, *, rotations: int, peers: int, rate: float) -> Outcome:
    """Rotates on demand, each time when the one before has ended, while all peers publish and receive.

    Args:
        world: Where; the operator is to be impatient with unused credentials.
        rotations: How often.
        peers: How many processes.
        rate: Messages per second that all of them publish together.
    """
    namespace = world.namespace()
    namespace.database(asyncio.run(world.postgres()).dsn)
    channel = namespace.channel()
    channel.wait_ready(_LIMIT)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgmq-bus-rotation-")))
        roots = [root / f"peer-{number}" for number in range(peers)]
        directories = [path / "orders" for path in roots]
        stack.enter_context(kubelets(lambda: namespace.secret("orders-bus"), directories, _KUBELET_SECONDS))
        started = [stack.enter_context(_Peer(path, rate / peers)) for path in roots]
        for peer in started:
            peer.answer()
        begun = time.monotonic()
        for peer in started:
            peer.tell("go")
        took = [_rotate(channel, number + 2) for number in range(rotations)]
        seconds = time.monotonic() - begun
        for peer in started:
            peer.tell("stop")
        told = [peer.answer() for peer in started]
        published = sum(answer["published"] for answer in told)
        for peer in started:
            peer.tell(str(published))
        received = [peer.answer() for peer in started]
    generations = {answer["generation"] for answer in received}
    if generations != {str(rotations + 1)}:
        raise AssertionError(f"peers use the credentials of generations {generations} after {rotations} rotations")
    return Outcome(
        seconds=seconds,
        published=published,
        failed=sum(answer["failed"] for answer in told),
        lost=sum(max(0, published - answer["received"]) for answer in received),
        again=sum(answer["again"] for answer in received),
        dropped=sum(answer["dropped"] for answer in received),
        longest=max(answer["longest"] for answer in told),
        rotations=took,
    )


def _rotate(channel: Ref, generation: int) -> float:
    begun = time.monotonic()
    channel.annotate({"pgmqbus.dev/rotate": str(generation)})

    def ended() -> bool:
        status = channel.status
        condition = channel.condition("CredentialsCurrent")
        return bool(status["credentialGeneration"] == generation and condition["reason"] == "Current")

    wait_until(ended, f"generation {generation} is the only one", _LIMIT)
    return time.monotonic() - begun


class _Peer:
    """A process that takes part."""

    def __init__(self, root: Path, rate: float) -> None:
        module = "benchmarks.operator_scale.rotating_peer"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, root, root.name, str(rate)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> "_Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def answer(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("a peer ended: see what it wrote to standard error")
        found: dict[str, Any] = json.loads(line)
        return found
