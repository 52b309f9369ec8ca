"""Several operators: one leads, another takes over, nothing is made by halves. Real processes, signals, networks."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres
import pytest
import yaml
from api_proxy import api_proxy
from control_plane import KubeClient, wait_until
from gateway import OPEN, SILENT, gateway
from operator_process import RELEASE, RELEASE_NAMESPACE, Operator
from operator_world import API, Namespace, Ref, World

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE_NAMESPACE}/leases/{RELEASE}"
TAKEOVER = 45.0
"""Seconds in which a leader that died is replaced, on a machine that does other work too. That it need not take more
than 12 is shown in tests/unit/test_election.py, where no time passes."""

AT_ONCE = 8.0
"""Seconds: less than the ten after which a Lease that nobody gave back is free."""

Start = Callable[..., Operator]


@pytest.fixture
def start(operator: Operator, tmp_path: Path) -> Iterator[Start]:
    """Starts further replicas; after the test the first one is alone again."""
    started: list[Operator] = []

    def run(server: str | None = None, **settings: str) -> Operator:
        kubeconfig = operator.kubeconfig
        if server is not None:
            content = yaml.safe_load(kubeconfig.read_text())
            content["clusters"][0]["cluster"]["server"] = server
            kubeconfig = tmp_path / f"kubeconfig-{len(started)}"
            kubeconfig.touch(mode=0o600)
            kubeconfig.write_text(yaml.safe_dump(content))
        made = Operator(kubeconfig, tmp_path / f"log-{len(started)}", **settings)
        made.start()
        started.append(made)
        return made

    yield run
    for replica in started:
        if replica.running:
            replica.signal(signal.SIGCONT)
            replica.terminate()
    if not operator.running:
        operator.start()
        wait_until(lambda: holder(operator) == operator.name, "the first leads again", TAKEOVER)


def holder(operator: Operator) -> str:
    """Who leads."""
    kube = KubeClient(operator.kubeconfig)
    try:
        return str((kube.get(LEASE) or {"spec": {}})["spec"].get("holderIdentity"))
    finally:
        kube.close()


def roles(*replicas: Operator) -> tuple[Operator, Operator]:
    """Of two replicas the leader and the other."""
    first, second = replicas
    name = wait_until(lambda: holder(first), "somebody leads", TAKEOVER)
    return (first, second) if name == first.name else (second, first)


def wait_leads(replica: Operator, seconds: float) -> None:
    wait_until(lambda: holder(replica) == replica.name, f"{replica.name} leads", seconds)


def begun(namespace: Namespace, created: postgres.Database, number: int) -> list[Ref]:
    """Channels of which the first are ready, and most are not: all of them had to wait for the same Secret."""
    database = namespace.database(None)
    channels = [namespace.channel(f"channel-{n}", deletionPolicy="Delete") for n in range(number)]
    namespace.put_secret(f"{database.name}-admin", {"uri": created.dsn})
    wait_until(lambda: namespace.ready_channels() > 0, "the first are ready")
    return channels


async def require_whole(namespace: Namespace, database: postgres.Database, channels: list[Ref]) -> None:
    """Every binding works, and nothing is there twice."""
    for channel in channels:
        async with namespace.login(f"{channel.name}-bus") as login:
            await login.join()
    async with database.session() as session:
        for table in ("pgmq_bus.channel", "pgmq.meta"):
            assert await session.fetchval(f"select count(*) from {table}") == len(channels)


async def test_all_answer_and_one_works(world: World, namespace: Namespace, operator: Operator, start: Start) -> None:
    leader, standby = roles(operator, start())
    namespace.database((await world.postgres()).dsn)
    namespace.channel().wait_ready()
    for replica in (leader, standby):
        assert replica.probe("/readyz") == 200
        assert replica.probe("/livez") == 200
    assert f"{namespace.name}/orders" in leader.log
    assert f"{namespace.name}/orders" not in standby.log


async def test_killed_in_the_middle_of_sixty(
    world: World, namespace: Namespace, operator: Operator, start: Start
) -> None:
    leader, standby = roles(operator, start())
    created = await world.postgres()
    channels = begun(namespace, created, 60)
    leader.kill()
    assert namespace.ready_channels() < 60
    wait_leads(standby, TAKEOVER)
    for channel in channels:
        channel.wait_ready(60)
    await require_whole(namespace, created, channels)


async def test_stopped(world: World, namespace: Namespace, operator: Operator, start: Start) -> None:
    """It gives the Lease back."""
    leader, standby = roles(operator, start())
    namespace.database((await world.postgres()).dsn).wait_ready()
    status, _ = leader.terminate()
    assert status == 0
    assert holder(standby) in ("", standby.name)
    wait_leads(standby, TAKEOVER)
    namespace.channel().wait_ready()


async def test_killed_and_started_again(world: World, namespace: Namespace, operator: Operator) -> None:
    """As the kubelet starts a container again: it is the same pod, whose Lease it still is."""
    namespace.database((await world.postgres()).dsn).wait_ready()
    operator.kill()
    operator.start()
    transitions = world.kube.get(LEASE)["spec"]["leaseTransitions"]
    namespace.channel().wait_ready(AT_ONCE)
    assert world.kube.get(LEASE)["spec"]["holderIdentity"] == operator.name
    assert transitions >= 1


async def test_frozen_in_the_middle_and_woken(
    world: World, namespace: Namespace, operator: Operator, start: Start
) -> None:
    """Its open transactions are gone by then, it writes nothing more, and it stands by."""
    leader, standby = roles(operator, start())
    created = await world.postgres()
    before = leader.log.count("leads no longer")
    channels = begun(namespace, created, 30)
    leader.signal(signal.SIGSTOP)
    try:
        wait_leads(standby, TAKEOVER)
        for channel in channels:
            channel.wait_ready(60)
        bindings = [namespace.raw_secret(f"{channel.name}-bus") for channel in channels]
    finally:
        leader.signal(signal.SIGCONT)
    wait_until(lambda: leader.log.count("leads no longer") > before, "it notices")
    assert leader.probe("/livez") == 200
    # The one that leads has looked at all of them once more when it has made another.
    namespace.channel("another", deletionPolicy="Delete").wait_ready()
    assert [namespace.raw_secret(f"{channel.name}-bus") for channel in channels] == bindings
    assert holder(standby) == standby.name
    await require_whole(namespace, created, [*channels, Ref(world.kube, "buschannels", namespace.name, "another")])


async def test_cut_off_from_the_api_server(
    world: World, namespace: Namespace, operator: Operator, start: Start
) -> None:
    """It stops before another leads, and is as good as any other when it is back."""
    namespace.database((await world.postgres()).dsn).wait_ready()
    scheme, _, port = world.kube.server.rpartition(":")
    with gateway(int(port)) as way:
        operator.terminate()
        distant = start(f"{scheme}:{way.port}", BUS_CANARY_SECONDS="1")
        wait_leads(distant, TAKEOVER)
        near = start()
        way.become(SILENT)
        wait_leads(near, TAKEOVER)
        assert "leads no longer" in distant.log
        namespace.channel("first").wait_ready()
        # A server that does not answer says nothing about the watches.
        assert distant.probe("/livez") == 200
        way.become(OPEN)
        near.terminate()
        # Its watches do not know yet that their connections are dead; it lists what there is when it takes over.
        second = namespace.channel("second")
        wait_leads(distant, TAKEOVER)
        # A request on a kept connection that died in silence takes 30 s to fail, and is then made again.
        second.wait_ready(90)


def songs(kube: KubeClient, plural: str) -> set[str]:
    """When the canary sang: on the oldest resource there is, which may be what another test has left."""
    items = kube.get(f"{API}/{plural}")["items"]
    return {item["metadata"].get("annotations", {}).get("pgmqbus.dev/canary", "") for item in items}


async def test_a_watch_that_has_gone_deaf(world: World, namespace: Namespace, operator: Operator, start: Start) -> None:
    """Its connection stands and bookmarks come, but no events."""
    namespace.database((await world.postgres()).dsn).wait_ready()
    namespace.channel().wait_ready()
    operator.terminate()
    before = {plural: songs(world.kube, plural) for plural in ("busdatabases", "buschannels")}
    with api_proxy(world.kube) as proxy:
        replica = start(proxy.url, BUS_CANARY_SECONDS="2")
        for plural, known in before.items():
            wait_until(
                lambda plural=plural, known=known: songs(world.kube, plural) - known, f"the canary of {plural} has sung"
            )
        assert replica.probe("/livez") == 200
        proxy.swallows = "buschannels"
        wait_until(lambda: replica.probe("/livez") == 503, "it is deaf", 60)
        assert proxy.swallowed
        assert "the watch of buschannels has not delivered version" in replica.log
        assert "the watch of busdatabases has not delivered version" not in replica.log
        assert replica.probe("/readyz") == 200
        proxy.swallows = ""
        replica.terminate()
        replica.start()
        wait_leads(replica, TAKEOVER)
        namespace.channel("another").wait_ready()
        assert replica.probe("/livez") == 200
        replica.terminate()
