"""Plans without performing them: what would be done to a database, and by which statements.

The statements are not written down a second time. The code that performs a plan runs as it is, over a `Recorder` in the
place of its session: what changes something is kept there, and only what reads reaches the server.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import asyncpg

from bus_operator import apply, catalog, drift_look, drift_repair, installation, plan, sql
from bus_operator.actions import DesiredChannel, GrantOwnerToSelf
from bus_operator.drift import Repair
from bus_operator.errors import SpecError
from bus_operator.model import Uid
from bus_operator.plan_credentials import HeldCredential, RotationRules

NEW = "NEW"
"""Stands in statements for what is chosen at random when a channel is made; 0 for its number in the registry."""

_FINGERPRINT = re.compile(r"^(\w+):[0-9a-f]{32}$")
_VERIFIER = re.compile(r"SCRAM-SHA-256\$[^'\s]+")
_ANSWERS: dict[str, Callable[[Sequence[Any]], Any]] = {
    sql.query("insert_channel"): lambda _: 0,
    sql.query("update_channel"): lambda arguments: arguments[0],
    sql.query("set_aside"): lambda arguments: arguments[0],
}
"""What the statements that change something and return something would return."""


@dataclass(frozen=True)
class Statement:
    """One that would be run. It holds nothing secret: verifiers are left out."""

    text: str
    arguments: tuple[Any, ...] = ()

    @property
    def as_json(self) -> dict[str, Any]:
        """The documented shape; what JSON has no type for is text."""
        plain = [item if isinstance(item, str | int | bool | None) else str(item) for item in self.arguments]
        return {"sql": self.text, "arguments": plain}


@dataclass(frozen=True)
class DryRun:
    """What would be done, in words, and by which statements; nothing where all is right."""

    actions: tuple[str, ...] = ()
    statements: tuple[Statement, ...] = ()
    notes: tuple[str, ...] = ()
    """What cannot be told yet, or is left to somebody."""
    issues: bool = False
    """Whether a credential would be issued, and a binding written."""


class _Transaction:
    """A transaction or savepoint of a Recorder: what is rolled back was never to be done."""

    def __init__(self, kept: list[Statement]) -> None:
        self._kept = kept
        self._begun = len(kept)

    async def start(self) -> None:
        self._begun = len(self._kept)

    async def commit(self) -> None:
        """Nothing to do."""

    async def rollback(self) -> None:
        del self._kept[self._begun :]

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.rollback()


class Recorder:
    """What code that performs plans takes for a session. The session behind it should be one that cannot write."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._kept: list[Statement] = []

    @property
    def statements(self) -> tuple[Statement, ...]:
        """What would have been run, in order, without verifiers and without random names."""
        names = [kept.arguments[1] for kept in self._kept if kept.text == sql.query("insert_channel")]
        tokens = [name.removeprefix("bus_") for name in names]

        def clean(value: Any) -> Any:
            if isinstance(value, timedelta):
                return f"{value.total_seconds():g} seconds"
            if not isinstance(value, str):
                return value
            # A fingerprint is of what the server then holds.
            value = _FINGERPRINT.sub(r"\1:...", value)
            for token in tokens:
                value = value.replace(token, NEW)
            return _VERIFIER.sub("SCRAM-SHA-256$...", value)

        return tuple(Statement(clean(kept.text), tuple(map(clean, kept.arguments))) for kept in self._kept)

    def transaction(self) -> _Transaction:
        """Of the recording; the server sees none."""
        return _Transaction(self._kept)

    async def execute(self, text: str, *arguments: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Keeps it."""
        self._kept.append(Statement(text, arguments))
        return ""

    async def fetchval(self, text: str, *arguments: Any) -> Any:
        """Keeps what changes something; else asks the server."""
        if text in _ANSWERS:
            await self.execute(text, *arguments)
            return _ANSWERS[text](arguments)
        return await self._connection.fetchval(text, *arguments)

    async def fetchrow(self, text: str, *arguments: Any) -> Any:
        """Asks the server."""
        return await self._connection.fetchrow(text, *arguments)

    async def fetch(self, text: str, *arguments: Any) -> Any:
        """Asks the server."""
        return await self._connection.fetch(text, *arguments)


async def installation_of(connection: asyncpg.Connection) -> DryRun:
    """What `provision.keep` would do to a database: install the bus or bring it up to date, put right what was changed.

    Raises:
        SpecError: When the server cannot be used as it is.
    """
    recorder: Any = Recorder(connection)
    found = await drift_look.look(connection)
    await drift_repair.repair(recorder, found)
    observed = await catalog.observe_database(connection)
    planned = plan.plan_installation(observed, sql.schema_version(), sql.functions_digest())
    for action in planned:
        await installation.perform(recorder, action)
    left = {Repair.REPORT, Repair.CREDENTIAL}
    notes = [item.remedy for item in found if item.repair is Repair.REPORT]
    if planned == [GrantOwnerToSelf()]:
        notes.append("the rest can be planned when the administrator is a member of the owner role")
    return DryRun(
        actions=(
            *(f"put right: {item}" for item in found if item.repair not in left),
            *map(str, planned),
        ),
        statements=recorder.statements,
        notes=tuple(notes),
    )


async def channel_of(
    connection: asyncpg.Connection,
    desired: DesiredChannel,
    held: HeldCredential | None,
    yielding: frozenset[Uid] = frozenset(),
    *,
    rotation: RotationRules,
    binding_wanted: bool,
) -> DryRun:
    """What `provision.provision` would do for a channel; arguments as there.

    Args:
        connection: A session in the database that holds the channel, or that it will be made in.

    Raises:
        SpecError: When the database must be migrated first, or may not be read yet.
        ChannelConflictError: When the wire name belongs to another BusChannel.
    """
    before = None
    database = await catalog.observe_database(connection)
    if database.schema_installed and not database.owns_as_owner_role:
        raise SpecError(f"channel {desired.name!r} can be planned when the administrator may read the registry")
    if database.schema_version is not None:
        if database.schema_version < sql.schema_version():
            raise SpecError(
                f"channel {desired.name!r} can be planned when the schema is migrated from version"
                f" {database.schema_version} to {sql.schema_version()}",
                reason="SchemaTooOld",
            )
        before = await catalog.observe_channel(connection, desired.name)
    planned = plan.plan_channel(
        desired,
        before,
        held,
        yielding,
        functions_digest=sql.channel_functions_digest(),
        rotation=rotation,
        binding_wanted=binding_wanted,
    )
    recorder: Any = Recorder(connection)
    issued = await apply.apply_channel(recorder, before, planned)
    if issued is not None:
        await recorder.execute(sql.query("publish_login"), issued.username)
    return DryRun(tuple(map(str, planned)), recorder.statements, issues=issued is not None)
