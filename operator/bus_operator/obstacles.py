"""Why a server cannot be used as it is. Pure: no I/O."""

from collections.abc import Iterator

from bus_operator.catalog import ObservedDatabase
from bus_operator.errors import SpecError

MINIMUM_SERVER = 150000
"""PostgreSQL 15: the first whose schema `public` is closed by default, and the oldest that is tested."""

MINIMUM_PGMQ = (1, 5)
"""PGMQ 1.5: the first whose queues have the column `headers`."""


def obstacles(observed: ObservedDatabase, schema_version: int) -> Iterator[SpecError]:
    """Why a server cannot be used as it is; each says what to change."""
    if observed.server_version_num < MINIMUM_SERVER:
        yield SpecError(f"PostgreSQL {observed.server_version} is too old: use 15 or newer", reason="UnsupportedServer")
    yield from _outdated_pgmq(observed)
    if observed.public_is_writable:
        yield SpecError(
            "every role may create objects in schema public or pgmq, where they could stand in for the bus functions:"
            " run REVOKE CREATE ON SCHEMA public FROM PUBLIC (and the same for pgmq)",
            reason="PublicSchemaWritable",
        )
    if observed.pgmq_belongs_to is not None and not observed.schema_installed:
        yield SpecError(
            f"schema pgmq, or something in it, belongs to role {observed.pgmq_belongs_to}, who is no administrator and"
            " could have the bus run what he put there: if you trust it, make it an administrator's (ALTER SCHEMA pgmq"
            " OWNER TO ..., and so for what is in it); else run DROP SCHEMA pgmq CASCADE, and the operator installs its"
            " own",
            reason="PublicSchemaWritable",
        )
    if observed.schema_version is not None and observed.schema_version > schema_version:
        yield SpecError(
            f"the database has schema version {observed.schema_version}, newer than this operator's {schema_version}:"
            " upgrade the operator",
            reason="SchemaTooNew",
        )


def _outdated_pgmq(observed: ObservedDatabase) -> Iterator[SpecError]:
    """Only the extension can be too old: where the server has none, it is bundled SQL."""
    installed = observed.pgmq_extension_version
    version = installed or (None if observed.pgmq_installed else observed.pgmq_available_version)
    if version is None or _version(version) >= MINIMUM_PGMQ:
        return
    then = "run ALTER EXTENSION pgmq UPDATE" if installed else "or remove that one, and PGMQ is installed as SQL"
    yield SpecError(
        f"the server's extension pgmq is of version {version}, which is too old: install a package of"
        f" {'.'.join(map(str, MINIMUM_PGMQ))} or newer on the server, {'and ' if installed else ''}{then}",
        reason="PgmqTooOld",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
