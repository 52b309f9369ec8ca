"""The operator is killed between any two statements, and the next one comes to the very same end."""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

import asyncpg
import former
import postgres
import pytest
from chaos import results
from chaos.steps import Step, Steps, Trials, points_that_matter, stepwise_postgres
from end_state import State, bus_roles, difference
from scenarios import INSTALLATION, SCENARIOS, KilledError, Scenario, Stage

from bus_operator import migrations, provision
from bus_operator.database import AdminConnection, connect
from bus_operator.errors import BusError

VERSIONS = (15, 18) if results.SECONDS else (18,)
POINTS = 4
"""At which the operator is killed in each scenario, where there is no time for others."""

FEW = (
    "a channel is created",
    "credentials are rotated",
    "roles and privileges are damaged",
    "deleted with Delete",
    "a second shard",
    f"the schema is migrated from version {former.VERSIONS[0]}",
)
"""Those that are tried where there is little time: they take several transactions, or the longest."""

CHOSEN = [scenario for scenario in SCENARIOS if results.SECONDS or scenario.name in FEW]
LOOKS = 20
TIMEOUT = 3600 if results.SECONDS else 300
ADMINISTRATOR = "administrator"


@dataclass
class Theatre:
    """A server, and the administrator of its databases, who is no superuser: with the fewest rights that he needs."""

    server: postgres.Server
    password: str
    steps: Steps
    port: int

    async def create(self, name: str, template: str) -> postgres.Database:
        session = await self.server.connect()
        try:
            await session.execute(f"create database {name} template {template} owner {ADMINISTRATOR}")
        finally:
            await session.close()
        return postgres.Database(self.server, name)

    def admin(self, database: str) -> AdminConnection:
        direct = self.server.admin(database, ADMINISTRATOR, self.password)
        return replace(direct, endpoint=replace(direct.endpoint, port=self.port))

    async def roles(self) -> set[str]:
        session = await self.server.connect()
        try:
            return await bus_roles(session)
        finally:
            await session.close()

    async def run(self, scenario: Scenario, last: int | None = None) -> tuple[State, list[Step], Step | None]:
        """The whole of it; `last`: the operator is killed after so many steps, and another one goes on.

        Returns how it ends, the steps of the first operator, and before which it was killed.
        """
        database = await self.create(f"bus_{secrets.token_hex(5)}", scenario.template)
        others = await self.roles()
        stage = Stage(database, self.admin(database.name), self.steps)
        try:
            self.steps.count()
            if scenario.before is not None:
                await scenario.before(stage)
            self.steps.count(last=last)
            try:
                await self._finish(scenario, stage)
            except (KilledError, BusError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                if self.steps.fatal is None:
                    raise
            taken, fatal = self.steps.stop()
            await self._finish(scenario, stage)
            return await stage.state(others), taken, fatal
        finally:
            await self._clean(database, await self.roles() - others)

    async def _finish(self, scenario: Scenario, stage: Stage) -> None:
        for _ in range(LOOKS):
            if await scenario.look(stage):
                return
        raise AssertionError(f"{scenario.name}: not at rest after {LOOKS} looks")

    async def _clean(self, database: postgres.Database, roles: set[str]) -> None:
        await postgres.drop_database(database)
        session = await self.server.connect()
        try:
            for role in roles:
                await session.execute(f"drop owned by {role} cascade; drop role {role}")
        finally:
            await session.close()


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: f"pg{version}")
def bare(request: pytest.FixtureRequest) -> Iterator[Theatre]:
    """On which nothing of ours is, not even roles."""
    server = postgres.start_server(request.param)
    try:
        steps, password = Steps(), secrets.token_hex(8)
        with stepwise_postgres(server.port, steps, all_statements=True) as proxy:
            asyncio.run(_create_administrator(server, password))
            yield Theatre(server, password, steps, proxy.port)
    finally:
        server.remove()


async def _create_administrator(server: postgres.Server, password: str) -> None:
    session = await server.connect()
    await session.execute(f"create role {ADMINISTRATOR} login createrole createdb password '{password}'")
    await session.close()


@pytest.fixture(scope="module")
def theatre(bare: Theatre) -> Theatre:
    """With databases to begin with: today's, and those that former versions left."""
    asyncio.run(_create_templates(bare))
    return bare


async def _create_templates(theatre: Theatre) -> None:
    await theatre.create("bus_template", "template0")
    async with connect(theatre.admin("bus_template")) as session:
        await provision.install(session)
    for version in former.VERSIONS:
        if not any(scenario.template == f"bus_version_{version}" for scenario in CHOSEN):
            continue
        database = await theatre.create(f"bus_version_{version}", "template0")
        owned = _Owned(theatre.server, database.name, theatre.password)
        status, output = await former.run_operator(version, owned, "channel", "orders", "{}")
        assert status == 0, output
        session = await theatre.server.connect(database.name)
        (queue,) = await session.fetchrow("select queue from pgmq_bus.channel")
        await session.execute(
            f"insert into pgmq.q_{queue} (vt, message) select now(), to_jsonb(n) from generate_series(1, 3) n"
        )
        await session.close()


@dataclass(frozen=True)
class _Owned(postgres.Database):
    password: str

    @property
    def dsn(self) -> str:
        return self.server.uri(self.name, ADMINISTRATOR, self.password)


async def killed_anywhere(theatre: Theatre, scenario: Scenario) -> None:
    """Kills it and compares; how it ends where nobody is killed is the measure."""
    expected, steps, _ = await theatre.run(scenario)
    assert not {part: rows for part, rows in expected.items() if rows and part.endswith(("drift", "transactions"))}
    points = points_that_matter(steps, POINTS)
    assert len(points) > 1
    with Trials(f"PostgreSQL {theatre.server.version}", scenario.name, steps, points) as trials:
        for point in trials:
            found, taken, fatal = await theatre.run(scenario, point)
            # A run that need not wait for a lock twice, say, is over sooner.
            assert fatal is not None or len(taken) <= point
            trials.came_to(difference(found, expected), taken, fatal)


@pytest.mark.timeout(TIMEOUT)
async def test_an_installation(bare: Theatre) -> None:
    await killed_anywhere(bare, INSTALLATION)


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda scenario: scenario.name)
async def test_what_is_done_in_a_database(
    theatre: Theatre, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody uses the functions that are waited for.
    monkeypatch.setattr(migrations, "SETTLED", 0.0)
    await killed_anywhere(theatre, scenario)
