"""A bus whose credentials are replaced under it: nothing fails, nothing is lost, and it says which ones it uses."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from postgres import Channel, Database
from projected import project
from recorder import Recorder, eventually, note

from bus_operator import provision
from bus_operator.actions import DesiredChannel
from bus_operator.binding import binding_data
from bus_operator.model import Uid
from bus_operator.plan_credentials import HeldCredential, RotationRules
from bus_operator.roles import IssuedCredential
from bus_runtime import PgmqBus, connection, find_binding
from bus_runtime.connection import Database as Connections


class Rotating:
    """Replaces the channel's credentials as the operator does, and brings them into the pod as the kubelet does."""

    def __init__(self, database: Database, channel: Channel, root: Path) -> None:
        self.database = database
        self._channel = channel
        self.held = HeldCredential(channel.username, channel.password)
        self.root = root
        self.project(IssuedCredential(channel.username, channel.password, 1))

    def project(self, credential: IssuedCredential) -> None:
        channel = self._channel
        files = binding_data(channel.endpoint, channel.name, channel.spec, credential)
        project(self.root / "orders", files)

    async def look(self, rules: RotationRules) -> provision.ProvisionedChannel:
        channel = self._channel
        uid = Uid(f"uid-{channel.name}")
        desired = DesiredChannel.from_spec(channel.spec, namespace="test", name="test", uid=uid)
        async with self.database.session() as session:
            return await provision.provision(session, desired, self.held, rotation=rules)

    async def rotate(self, request: str) -> None:
        """Returns when the login of before has ended, because nobody was seen to use it any more."""
        rules = RotationRules(request=request)
        issued = (await self.look(rules)).issued
        assert issued is not None
        self.held = HeldCredential(issued.username, issued.password)
        self.project(issued)
        await self._retire(request)

    async def _retire(self, request: str) -> None:
        rules = RotationRules(request=request, unused=timedelta(0))
        async with asyncio.timeout(30):
            while len((await self.look(rules)).channel.logins) > 1:
                await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LOOK_INTERVAL", 0.05)


@pytest.fixture
async def rotating(database: Database, tmp_path: Path) -> Rotating:
    channel = await database.create_channel("shop.orders", peerTimeout="10s")
    return Rotating(database, channel, tmp_path / "bindings")


@pytest.mark.parametrize("address", ["127.0.0.1", "off"], ids=["doorbell", "listen"])
async def test_under_load_nothing_fails_and_nothing_is_lost(
    rotating: Rotating,
    database: Database,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("PGMQ_BUS_ADDRESS", address)
    buses, recorders = [], []
    for number in range(3):
        bus, recorder = PgmqBus.from_binding(root=rotating.root, peer=f"peer-{number}"), Recorder()
        await bus.subscribe(recorder)
        await bus.start()
        buses.append(bus)
        recorders.append(recorder)
    published: list[int] = []
    stopping = False

    async def publish(bus: PgmqBus, first: int) -> None:
        number = first
        while not stopping:
            await bus.publish(note(number), raise_on_error=True)
            published.append(number)
            number += len(buses)
            await asyncio.sleep(0.002)

    publishing = [asyncio.create_task(publish(bus, number)) for number, bus in enumerate(buses)]
    for round_ in range(3):
        await rotating.rotate(str(round_))
        await eventually(lambda round_=round_: {bus.stats().generation for bus in buses} == {str(round_ + 2)})
    stopping = True
    await asyncio.gather(*publishing)
    for recorder in recorders:
        await eventually(lambda recorder=recorder: len(recorder.numbers) >= len(published))
        assert sorted(recorder.numbers) == sorted(published)
        assert recorder.numbers == recorders[0].numbers
    for bus in buses:
        stats = bus.stats()
        assert (stats.publish_errors, stats.lost, stats.redelivered, stats.rejoined, stats.reconnects) == (0,) * 5
        # A session that listens is replaced as well; meanwhile the log is looked at.
        wake = "listen" if address == "off" else "doorbell"
        await eventually(lambda bus=bus, wake=wake: bus.stats().wake == wake)
    async with database.session() as session:
        names = await session.fetch("select distinct application_name from pg_stat_activity where usename ~ '_g4$'")
    assert [row[0].endswith(" g4") for row in names] == [True]
    await asyncio.gather(*(bus.stop() for bus in buses))
    assert "going on with generation 4 of the credentials (before: 3)" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_credentials_that_do_not_work_are_left_alone(
    rotating: Rotating, caplog: pytest.LogCaptureFixture
) -> None:
    """Until there are others that do: the connections there are go on."""
    own = Connections(binding=find_binding(root=rotating.root))
    backend = "select pg_backend_pid() as pid"
    before = (await own.fetch(backend))[0]["pid"]
    directory = rotating.root / "orders"
    files = {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    project(directory, files | {"generation": "2", "uri": files["uri"].replace(files["password"], "wrong")})
    await eventually(lambda: "connecting with the replaced binding" in caplog.text)
    assert "kubectl describe buschannel orders says whether it is withdrawn. [AuthenticationFailed]" in caplog.text
    assert ((await own.fetch(backend))[0]["pid"], own.generation) == (before, "1")
    project(directory, files | {"generation": "3"})
    await eventually(lambda: own.generation == "3")
    assert (await own.fetch(backend))[0]["pid"] != before
    await own.close()


async def test_closing_at_the_very_moment_of_a_rotation_ends_no_later_looks(rotating: Rotating) -> None:
    """A bus may be stopped and started again."""
    own = Connections(binding=find_binding(root=rotating.root))
    await own.fetch("select 1")
    directory = rotating.root / "orders"
    files = {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    project(directory, files | {"generation": "2"})
    own._look()
    await own.close()
    await own.fetch("select 1")
    await eventually(lambda: own.generation == "2")
    await own.close()


async def test_what_else_changes_in_the_binding_replaces_nothing(rotating: Rotating) -> None:
    own = Connections(binding=find_binding(root=rotating.root))
    before = (await own.fetch("select pg_backend_pid() as pid"))[0]["pid"]
    directory = rotating.root / "orders"
    files = {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    told: list[int] = []
    own.on_renewed.add(lambda: told.append(own.renewals))
    project(directory, files | {"config.json": "{}"})
    await eventually(lambda: told == [0])
    assert (await own.fetch("select pg_backend_pid() as pid"))[0]["pid"] == before
    await own.close()


async def test_a_login_that_ended_too_early(rotating: Rotating) -> None:
    """Before the files changed: the next connection reads them anew."""
    bus, recorder = PgmqBus.from_binding(root=rotating.root), Recorder()
    await bus.subscribe(recorder)
    await bus.start()
    async with rotating.database.session() as session:
        name = rotating.held.username
        await session.execute(f"alter role {name} nologin")
        await session.fetch("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1", name)
    publishing = asyncio.create_task(bus.publish(note(1), raise_on_error=True))
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(find_binding(root=rotating.root).uri)
    issued = (await rotating.look(RotationRules())).issued
    assert issued is not None
    rotating.project(issued)
    await publishing
    await eventually(lambda: recorder.numbers == [1], seconds=20)
    assert bus.stats().rejoined == 0
    await bus.stop()
