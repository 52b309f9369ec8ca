"""The control plane of the soak: an API server, the operator's process, and BusChannels that never stay as they are.

All of it is in threads: it waits for answers, and what stands between workers and the server must not.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

import postgres
import urllib3
from chaos import kubernetes
from chaos.promises import Durability
from chaos.soak.world import CHANNELS, LEGACY
from chaos.world import DURABILITIES
from control_plane import ApiError, ControlPlane, KubeClient, wait_until
from operator_process import BIN, Operator, Process, install_chart
from operator_world import API, Ref, World
from projected import kubelets

from bus_operator import login_session

NAMESPACE = "soak"

#: What may be in the way while something is broken: it is tried again.
_OBSTACLES = (ApiError, urllib3.exceptions.HTTPError, *login_session.FAILURES)

#: Seconds in which what was asked for is done, also when that was in the middle of a fault.
_PATIENCE = 120.0

#: Seconds by which kubelets are late, in which nobody must be seen to use a credential until it ends, and of silence
#: until a peer without a name is gone.
_KUBELETS, _UNUSED, _PEER_TIMEOUT = 2.0, 10, "30s"


@dataclass(slots=True)
class Activity:
    """What was done to BusChannels.

    Attributes:
        made: Channels that were made, used, changed and rotated.
        deleted: Those that were deleted again.
        rotations: Of the workers' channels: seconds until the former login had ended.
        retries: How often something was in the way, and it was tried again.
        stuck: What did not come to pass.
    """

    made: int = 0
    deleted: int = 0
    rotations: list[float] = field(default_factory=list)
    retries: int = 0
    stuck: list[str] = field(default_factory=list)


class Control:
    """What owns the channels.

    Args:
        control_plane: A running API server of its own.
        kube: Its administrator's client.
        operator: The operator's process.
        server: The channels' server.
        database: The channels' database.
        client_port: Where clients reach it.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        kube: KubeClient,
        operator: Operator,
        database: postgres.Database,
        client_port: int,
    ) -> None:
        self.kube = kube
        self.operator = operator
        self.activity = Activity()
        world = World(kube, operator, database.server)
        self.namespace = world.namespace(NAMESPACE)
        endpoint = {"host": "127.0.0.1", "port": client_port}
        self._database = self.namespace.database(database.dsn, clientEndpoint=endpoint)
        self._database.wait_ready(_PATIENCE)
        self._control_plane = control_plane
        self._world = world
        self._channels: dict[str, Ref] = {}
        # Rotations and faults of the control plane: one of them at a time, for both look at the Secret's generation.
        self._secrets = threading.Lock()

    def create_channels(self) -> None:
        """Those that the workers use."""
        durabilities: dict[str, Durability] = {name: durability for durability, name in CHANNELS.items()}
        for name, durability in (durabilities | {LEGACY: "Sync"}).items():
            self._channels[name] = self.namespace.channel(
                name, durability=durability, peerTimeout=_PEER_TIMEOUT, deletionPolicy="Delete"
            )
        for channel in self._channels.values():
            channel.wait_ready(_PATIENCE)

    @contextmanager
    def kubelets(self, root: Path) -> Iterator[None]:
        """Keeps a directory of bindings as the Secrets are."""
        with ExitStack() as stack:
            for name in self._channels:
                secret = partial(self.namespace.secret, f"{name}-bus")
                stack.enter_context(kubelets(secret, [root / name], _KUBELETS))
            yield

    def strike(self, nemesis: kubernetes.Nemesis) -> kubernetes.Strike:
        """Break something of the control plane, and wait until the operator has done its work."""
        with self._secrets:
            stage = kubernetes.Stage(
                self._control_plane, self.operator, self._world, self.namespace, self._channels[CHANNELS["Sync"]]
            )
            # It may still be at what a fault of the server has left.
            stage.channel.wait_ready(_PATIENCE)
            return asyncio.run(kubernetes.strike(stage, "", nemesis))

    def churn(self, ended: threading.Event, rng: random.Random, pause: float) -> None:
        """Makes channels, uses, changes and deletes them, until told to end. There are three at any time."""
        alive: list[Ref] = []
        for number in _until(ended, pause):
            with self._trying(f"channel churn-{number}"):
                alive.append(Ref(self.kube, "buschannels", NAMESPACE, f"churn-{number}"))
                self._give_a_life(alive[-1], rng)
            if len(alive) > 3:
                with self._trying(f"deletion of {alive[0].name}"):
                    self._delete(alive[0])
                    alive.pop(0)

    def _give_a_life(self, channel: Ref, rng: random.Random) -> None:
        """Makes a channel; messages, changes, a rotation."""
        first, second = rng.sample(DURABILITIES, 2)
        self.namespace.channel(channel.name, durability=first, deletionPolicy="Delete")
        channel.wait_ready(_PATIENCE)
        asyncio.run(self._use(channel.name))
        channel.patch({"durability": second, "limits": {"maxPeers": rng.randint(2, 100)}})
        channel.annotate({"pgmqbus.dev/rotate": "once"})
        channel.wait_ready(_PATIENCE)
        self.activity.made += 1

    def _delete(self, channel: Ref) -> None:
        channel.delete()
        channel.wait_gone(_PATIENCE)
        # As the garbage collector does, which no API server has by itself.
        self.namespace.delete_secret(f"{channel.name}-bus")
        self.activity.deleted += 1

    async def _use(self, name: str) -> None:
        async with asyncio.timeout(_PATIENCE), self.namespace.login(f"{name}-bus") as login:
            peer = await login.join()
            await login.publish(peer, *range(10))
            await login.read(peer, acknowledge=True)

    def rotate(self, ended: threading.Event, pause: float) -> None:
        """Replaces the credentials of the workers' channels, one after the other, until told to end."""
        names = cycle(CHANNELS.values())
        for number in _until(ended, pause):
            name = next(names)
            with self._secrets, self._trying(f"rotation of {name}"):
                self.activity.rotations.append(self._rotate(self._channels[name], f"number {number}"))

    def _rotate(self, channel: Ref, request: str) -> float:
        began = time.monotonic()
        generation = channel.status["credentialGeneration"]
        channel.annotate({"pgmqbus.dev/rotate": request})

        def over() -> bool:
            try:
                status = channel.status
            except _OBSTACLES:
                return False
            reasons = {item["type"]: item["reason"] for item in status["conditions"]}
            return bool(status["credentialGeneration"] > generation and reasons["CredentialsCurrent"] == "Current")

        wait_until(over, f"the login of generation {generation} has ended", _PATIENCE)
        return time.monotonic() - began

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        try:
            yield
        except AssertionError as exc:
            self.activity.stuck.append(f"{what}: {exc}")
        except (*_OBSTACLES, TimeoutError):
            self.activity.retries += 1

    def remove_churned(self) -> None:
        """Deletes what churning has left.

        Raises:
            AssertionError: Something does not go.
        """
        self._remove(lambda name: name not in self._channels)

    def remove_channels(self) -> None:
        """Deletes all channels."""
        self._remove(lambda _: True)

    def _remove(self, chosen: Callable[[str], bool]) -> None:
        items = self.kube.get(f"{API}/namespaces/{NAMESPACE}/buschannels")["items"]
        for name in [item["metadata"]["name"] for item in items]:
            if chosen(name):
                self._delete(Ref(self.kube, "buschannels", NAMESPACE, name))

    def settled(self) -> None:
        """Waits until the credentials of the workers' channels are the only ones."""
        for channel in self._channels.values():
            channel.wait_for("Current", "CredentialsCurrent", seconds=_PATIENCE)


def _until(ended: threading.Event, pause: float) -> Iterator[int]:
    """Numbers from 1 on, a while apart."""
    number = 0
    while not ended.wait(pause):
        number += 1
        yield number


def _start_program(environment: Mapping[str, str], log: Path) -> Process:
    """As the container starts it; Ctrl-C is not for it."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [BIN / "bus-operator"], env=environment, stdout=output, stderr=output, start_new_session=True
        )


@contextmanager
def running_operator(control_plane: ControlPlane, directory: Path) -> Iterator[tuple[KubeClient, Operator]]:
    """An operator with the rights that the chart gives it, and a client of its API server.

    Its settings are the product's, but that it takes ten seconds for two minutes: kubelets are quicker here.
    """
    kube = KubeClient(control_plane.kubeconfig)
    try:
        kube.install_definitions()
        kubeconfig = install_chart(kube, directory)
        operator = Operator(
            kubeconfig,
            directory / "operator.log",
            start_process=_start_program,
            BUS_RESYNC_SECONDS="60",
            BUS_LOG_LEVEL="INFO",
            BUS_CREDENTIAL_UNUSED_SECONDS=str(_UNUSED),
        )
        operator.start()
        try:
            yield kube, operator
        finally:
            operator.kill()
    finally:
        kube.close()
