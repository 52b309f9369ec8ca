"""The operator's process is killed between any two of its writes, and the next one comes to the very same end.

It reaches PostgreSQL and the API server through proxies that count what it writes. What happens between two statements
of one transaction is tried in tests/database/test_killed.py, which is quicker.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import postgres
import pytest
import yaml
from api_proxy import api_proxy
from chaos import results
from chaos.steps import Step, Steps, StepwisePostgres, Trials, stepwise_postgres
from control_plane import KubeClient
from end_state import State, bus_roles, difference, end_state
from gateway import CLOSED, OPEN
from operator_forks import fork_server
from operator_process import BIN, RELEASE, Operator, account_kubeconfig
from operator_world import Namespace, Ref, World

from bus_operator import drift_look
from bus_operator.kube import FINALIZER

SECONDS = 150.0
WEBHOOKS = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{RELEASE}"
TIMES = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
TOKENS = re.compile(r"(?<=_)[0-9a-f]{12}(?=_|$)")


@dataclass(frozen=True)
class Stage:
    """The operator that is killed, and what counts its steps."""

    operator: Operator
    steps: Steps
    api: str
    """Where the API server is reached so that they are counted."""
    gateway: StepwisePostgres
    server: postgres.Server

    def kill(self) -> None:
        self.operator.signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def stage(
    kube: KubeClient, operator: Operator, server: postgres.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """It takes the place of the usual one."""
    operator.terminate()
    steps, directory = Steps(), tmp_path_factory.mktemp("killed")
    kubeconfig = directory / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    with (
        api_proxy(kube, steps) as proxy,
        stepwise_postgres(server.port, steps, all_statements=False) as before_server,
        fork_server(kubeconfig) as forks,
    ):
        configuration = yaml.safe_load(operator.kubeconfig.read_text())
        configuration["clusters"][0]["cluster"]["server"] = proxy.url
        kubeconfig.write_text(yaml.safe_dump(configuration))
        forked = Operator(
            kubeconfig,
            directory / "log",
            start_process=forks.start,
            BUS_CREDENTIAL_UNUSED_SECONDS="0.1",
            BUS_CANARY_SECONDS="3600",
        )
        forked.start()
        yield Stage(forked, steps, proxy.url, before_server, server)
        if forked.running:
            forked.terminate()
    operator.start()


@pytest.fixture
def world(kube: KubeClient, stage: Stage, server: postgres.Server) -> Iterator[World]:
    """As for other tests, with the operator that is killed."""
    made = World(kube, stage.operator, server)
    yield made
    made.remove()


@dataclass
class Scene:
    """What one run is about."""

    world: World
    stage: Stage
    namespace: Namespace
    created: postgres.Database
    others: set[str]
    """Roles that are other runs'."""
    resources: dict[str, Ref] = field(default_factory=dict)
    namespaces: list[Namespace] = field(default_factory=list)
    uid: str = "none"

    @property
    def channel(self) -> Ref:
        return self.resources["channel"]

    @property
    def database(self) -> Ref:
        return self.resources["database"]

    def add_database(self, **spec: Any) -> None:
        admin = self.created.admin.endpoint
        uri = self.created.dsn.replace(f":{admin.port}/", f":{self.stage.gateway.port}/")
        self.resources["database"] = self.namespace.database(uri, clientEndpoint={"port": admin.port}, **spec)

    def add_channel(self, **spec: Any) -> None:
        """In the last of the namespaces."""
        channel = self.namespaces[-1].channel(database=f"{self.namespace.name}/main", **spec)
        self.resources["channel"], self.uid = channel, channel.get()["metadata"]["uid"]

    async def has(self, channels: int, *, generation: int | None = 1) -> bool:
        """Whether all that there is is ready, counted, and at rest."""
        counted = self.database.status.get("channels") == channels
        if not counted or not is_ready(self.database.get()):
            return False
        if "channel" not in self.resources or generation is None:
            return True
        # Read once: what belongs together is of one moment.
        found = self.channel.get() or {}
        status = found.get("status", {})
        conditions = {item["type"]: item for item in status.get("conditions", [])}
        current = conditions.get("CredentialsCurrent", {}).get("reason") == "Current"
        verified = conditions.get("IsolationVerified", {}).get("status") == "True"
        return is_ready(found) and current and verified and status.get("credentialGeneration") == generation

    async def publish(self) -> None:
        async with self.namespaces[-1].login() as login:
            await login.publish(await login.join(), 1, 2, 3)
        await self.run("update pgmq_bus.peer set last_seen = last_seen - interval '10 minutes'")

    async def run(self, statement: str) -> None:
        session = await self.stage.server.connect(self.created.name)
        try:
            (queue,) = await session.fetchrow("select queue from pgmq_bus.channel")
            await session.execute(statement.format(token=queue.removeprefix("bus_")))
        finally:
            await session.close()

    async def state(self) -> State:
        """What there is in the API server and in the database, in words that do not differ from run to run."""
        session = await self.stage.server.connect(self.created.name)
        try:
            names = {namespace.name: f"namespace {n}" for n, namespace in enumerate(self.namespaces)}
            names |= {self.created.name: "database", self.uid: "<uid>"}
            in_database = await end_state(session, names=names, others=self.others)
            # Those of the operator that runs.
            del in_database["open transactions"]
        finally:
            await session.close()
        in_cluster = {}
        for namespace in self.namespaces:
            in_cluster |= {
                f"{names[namespace.name]}: {part}": [_told(text, names) for text in texts]
                for part, texts in self._in_namespace(namespace).items()
            }
        return in_cluster | in_database

    def _in_namespace(self, namespace: Namespace) -> State:
        resources = [ref.get() for ref in self.resources.values() if ref.namespace == namespace.name]
        bindings = [f"{ref.name}-bus" for ref in self.resources.values() if "buschannels" in ref.path]
        return {
            "resources": [
                json.dumps([item["metadata"].get("finalizers"), item["spec"], _lasting(item["status"])], sort_keys=True)
                for item in resources
                if item is not None
            ],
            "bindings": [
                json.dumps({key: value for key, value in sorted(secret.items()) if key not in ("password", "uri")})
                for secret in map(namespace.secret, bindings)
                if secret is not None
            ],
            "its pods are shown": [str(namespace.name in selecting_namespaces(self.world.kube))],
        }


def _lasting(status: dict[str, Any]) -> dict[str, Any]:
    # An entry that was added and removed leaves an empty field.
    return {name: value for name, value in status.items() if name != "oldestMessageAge" and value != {}}


def _told(text: str, names: dict[str, str]) -> str:
    for name, replacement in names.items():
        text = text.replace(name, replacement)
    return TOKENS.sub("<token>", TIMES.sub("<time>", text))


def is_ready(resource: Any) -> bool:
    ready = next((item for item in resource.get("status", {}).get("conditions", []) if item["type"] == "Ready"), {})
    current = ready.get("observedGeneration") == resource.get("metadata", {}).get("generation")
    return current and ready.get("status") == "True"


def selecting_namespaces(kube: KubeClient) -> list[str]:
    """Those whose unlabelled pods the webhook is shown."""
    return [
        value
        for webhook in kube.get(WEBHOOKS)["webhooks"]
        if webhook["name"].startswith("select.")
        for expression in webhook["namespaceSelector"]["matchExpressions"]
        for value in expression["values"]
    ]


@dataclass(frozen=True)
class Scenario:
    """Something that the operator does because of what users do.

    Attributes:
        name: What.
        act: What users do.
        over: Whether the operator is done with it.
        before: What they have done, and the operator is done with.
        settled: Whether it is.
        installed: Whether the database holds the schema already.
    """

    name: str
    act: Callable[[Scene], Awaitable[None]]
    over: Callable[[Scene], Awaitable[bool]]
    before: Callable[[Scene], Awaitable[None]]
    installed: bool = True


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not await condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def play(
    world: World, stage: Stage, scenario: Scenario, last: int | None = None
) -> tuple[State, list[Step], Step | None]:
    """All of it; `last`: the operator is killed after so many steps, and starts again."""
    created = await world.postgres(installed=scenario.installed)
    session = await stage.server.connect()
    others = await bus_roles(session)
    await session.close()
    namespace = world.namespace()
    scene = Scene(world, stage, namespace, created, others, namespaces=[namespace])
    await scenario.before(scene)
    stage.steps.count(last=last, kill=stage.kill)
    await scenario.act(scene)

    async def over_or_dead() -> bool:
        return stage.steps.fatal is not None or await scenario.over(scene)

    await until(over_or_dead, f"{scenario.name} is over")
    taken, fatal = stage.steps.stop()
    if fatal is not None:
        stage.operator.kill()
        stage.operator.start(wait_ready=False)
    await until(lambda: scenario.over(scene), f"{scenario.name} is over, after a death before: {fatal}")
    return await scene.state(), taken, fatal


async def with_database(scene: Scene) -> None:
    scene.add_database()
    await until(lambda: scene.has(0), "the database is ready")


async def with_channel(scene: Scene, **spec: Any) -> None:
    await with_database(scene)
    scene.add_channel(**spec)
    await until(lambda: scene.has(1), "the channel is ready")
    await scene.publish()


def kept(policy: str) -> Callable[[Scene], Awaitable[None]]:
    async def before(scene: Scene) -> None:
        await with_channel(scene, deletionPolicy=policy)

    return before


async def nothing(_: Scene) -> None:
    pass


async def create(scene: Scene) -> None:
    scene.add_channel()


async def select_pods(scene: Scene) -> None:
    scene.add_channel(injection={"podSelector": {"matchLabels": {"app": "shop"}}})


async def change(scene: Scene) -> None:
    scene.channel.patch(
        {"durability": "Unlogged", "limits": {"maxPeers": 7, "maxConnections": 9}, "retention": {"maxMessages": 50}}
    )


async def rotate(scene: Scene) -> None:
    scene.channel.annotate({"pgmqbus.dev/rotate": "now"})


async def delete_secret(scene: Scene) -> None:
    scene.namespace.delete_secret("orders-bus")


async def edit_secret(scene: Scene) -> None:
    scene.namespace.put_secret("orders-bus", {"password": "edited"})


async def damage(scene: Scene) -> None:
    await scene.run("drop function pgmq_bus_channel.publish_{token}; revoke pgmq_bus_client from bus_channel_{token}")


async def delete(scene: Scene) -> None:
    scene.channel.delete()


async def delete_without_database(scene: Scene) -> None:
    """It goes; what its policy says is done later."""
    scene.stage.gateway.become(CLOSED)
    try:
        scene.channel.delete()

        async def gone_or_dead() -> bool:
            return scene.channel.get() is None or scene.stage.steps.fatal is not None

        await until(gone_or_dead, "it has gone")
    finally:
        scene.stage.gateway.become(OPEN)


async def with_foreign_channel(scene: Scene) -> None:
    scene.namespaces.append(scene.world.namespace())
    scene.add_database(allowedNamespaces={"from": "All"})
    scene.add_channel()
    await until(lambda: scene.has(1), "the channel is ready")
    await scene.publish()


async def withdraw(scene: Scene) -> None:
    scene.database.patch({"allowedNamespaces": {"from": "Same"}})


async def withdrawn(scene: Scene) -> bool:
    ready = scene.channel.condition()
    return "logins were dropped" in ready.get("message", "") and is_ready(scene.database.get())


async def add_database(scene: Scene) -> None:
    scene.add_database()


async def repaired(scene: Scene) -> bool:
    session = await scene.stage.server.connect(scene.created.name)
    try:
        await session.execute("set search_path = pg_catalog, pg_temp")
        return await drift_look.look(session, fingerprint=True) == [] and await scene.has(1)
    finally:
        await session.close()


def has(channels: int, generation: int | None = 1) -> Callable[[Scene], Awaitable[bool]]:
    return lambda scene: scene.has(channels, generation=generation)


async def selected(scene: Scene) -> bool:
    return scene.namespace.name in selecting_namespaces(scene.world.kube) and await scene.has(1)


def gone(channels: int) -> Callable[[Scene], Awaitable[bool]]:
    """The BusChannel, and of the channels in the database so many are left."""

    async def over(scene: Scene) -> bool:
        owed = scene.database.status.get("pendingDeletions")
        return scene.channel.get() is None and not owed and await scene.has(channels, generation=None)

    return over


SCENARIOS = [
    Scenario("a database is installed", add_database, has(0), nothing, installed=False),
    Scenario("a channel is created", create, has(1), with_database),
    Scenario("a channel that selects pods is created", select_pods, selected, with_database),
    Scenario("durability, limits and retention change", change, has(1), with_channel),
    Scenario("credentials are rotated", rotate, has(1, 2), with_channel),
    Scenario("the Secret is deleted", delete_secret, has(1, 2), with_channel),
    Scenario("the Secret is edited", edit_secret, has(1, 2), with_channel),
    Scenario("functions and roles are damaged", damage, repaired, with_channel),
    Scenario("access is withdrawn", withdraw, withdrawn, with_foreign_channel),
    Scenario("deleted with Retain", delete, gone(1), kept("Retain")),
    Scenario("deleted with Delete", delete, gone(0), kept("Delete")),
    Scenario("deleted with DeleteIfEmpty, not empty", delete, gone(1), kept("DeleteIfEmpty")),
    Scenario("deleted without the database", delete_without_database, gone(0), kept("Delete")),
]


FEW = ("a channel is created", "credentials are rotated", "deleted without the database")
"""Those that are tried where there is little time: they take most of the ways there are."""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if results.SECONDS or scenario.name in FEW],
    ids=lambda scenario: scenario.name,
)
async def test_killed_before_a_step(world: World, stage: Stage, scenario: Scenario) -> None:
    expected, steps, _ = await play(world, stage, scenario)
    # Another one than of other scenarios.
    point = zlib.crc32(scenario.name.encode()) % len(steps)
    with Trials(results.PROCESS, scenario.name, steps, [point]) as trials:
        for point in trials:
            found, taken, fatal = await play(world, stage, scenario, point)
            trials.came_to(difference(found, expected), taken, fatal)


async def test_uninstalling_is_killed(world: World, stage: Stage, namespace: Namespace, tmp_path: Path) -> None:
    """The hook of the chart, before each BusChannel that it lets go; the next attempt lets the others go."""
    stage.operator.kill()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    account = yaml.safe_load(account_kubeconfig(world.kube, tmp_path, f"{RELEASE}-uninstall").read_text())
    account["clusters"][0]["cluster"]["server"] = stage.api
    kubeconfig.write_text(yaml.safe_dump(account))
    command = [BIN / "busctl", "release-finalizers", "--namespace", namespace.name]
    channels = [namespace.channel(name) for name in ("first", "second", "third")]

    def release(last: int | None) -> None:
        """Lets them go, and is killed if it takes so many steps and another one."""
        running = subprocess.Popen(command, env=os.environ | {"KUBECONFIG": str(kubeconfig)})
        stage.steps.count(last=last, kill=running.kill)
        assert (running.wait(60) == 0) == (last is None)
        held = ["finalizers" in channel.get()["metadata"] for channel in channels]
        assert held.count(True) == (len(channels) - last if last is not None else 0)

    def hold() -> None:
        for channel in channels:
            world.kube.patch(channel.path, {"metadata": {"finalizers": [FINALIZER]}})

    try:
        hold()
        release(None)
        with Trials(results.PROCESS, "all are let go for an uninstallation", stage.steps.taken, [1]) as trials:
            for last in trials:
                hold()
                release(last)
                taken, fatal = stage.steps.taken, stage.steps.fatal
                release(None)
                trials.came_to("", taken, fatal)
        for channel in channels:
            channel.delete()
            assert channel.get() is None
    finally:
        stage.operator.start()
