"""SQL with what no parameter can stand for: names, and DDL. The only place that quotes identifiers."""

import re
from collections.abc import Mapping, Sequence

from bus_operator.naming import CLIENT_ROLE, OWNER_ROLE, channel_functions

ROLE_SETTINGS = {
    # pipecat's and our clients qualify every name; an empty path leaves nothing to plant.
    "search_path": "pg_catalog, pg_temp",
    # A member that keeps its transaction open after publishing stops its channel for no longer than this.
    "idle_in_transaction_session_timeout": "'15s'",
    "statement_timeout": "'30s'",
    # No call is long enough for compiling to pay; wrongly estimated ones would be compiled each time.
    "jit": "off",
}
"""Session defaults of a login. What differs from them is drift."""

TRANSPORT_SETTINGS = {
    # A machine that vanished says no goodbye: its sessions would hold their connections and their credential for the
    # two hours that systems wait by default. 30 + 3 x 10 s, and as long if something is under way.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "'60s'",
}
"""More of them, which harm nobody but the session: logins of former versions go without, until they are replaced."""

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def identifier(name: str) -> str:
    """A quoted identifier. Raises ValueError for what PostgreSQL cannot hold: NUL, or more than 63 bytes."""
    if not name or "\0" in name or len(name.encode()) > 63:
        raise ValueError(f"{name!r} cannot be a PostgreSQL identifier (1 to 63 bytes, no NUL)")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted string literal, for the few statements that accept no parameter."""
    if "\0" in text:
        raise ValueError("a PostgreSQL string cannot hold NUL")
    if "\\" in text:
        return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"


def create_group_role(name: str) -> str:
    """A role that nobody logs in as."""
    return f"CREATE ROLE {identifier(name)} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


def grant_role(role: str, member: str) -> str:
    """Makes `member` a member of `role`."""
    return f"GRANT {identifier(role)} TO {identifier(member)}"


def grant_role_to_self(role: str) -> str:
    """Lets an administrator who is no superuser act as `role`."""
    return f"GRANT {identifier(role)} TO CURRENT_USER"


def set_local_role(role: str) -> str:
    """Acts as `role` to the end of the transaction."""
    return f"SET LOCAL ROLE {identifier(role)}"


def login_attributes(name: str, verifier: str, connection_limit: int) -> str:
    """Lets a role log in. `verifier` is a SCRAM verifier, never a clear password.

    The attributes that `create_group_role` denied are not repeated: only a superuser may even mention some of them.
    """
    return (
        f"ALTER ROLE {identifier(name)} LOGIN INHERIT"
        f" CONNECTION LIMIT {connection_limit:d} PASSWORD {literal(verifier)}"
    )


def login_settings(name: str) -> list[str]:
    """Session defaults of a login."""
    settings = ROLE_SETTINGS | TRANSPORT_SETTINGS
    return [f"ALTER ROLE {identifier(name)} SET {setting} TO {value}" for setting, value in settings.items()]


def login_defaults() -> list[str]:
    """Those session defaults of a login that it must have, as pg_db_role_setting has them."""
    return [f"{setting}={value.strip(chr(39))}" for setting, value in ROLE_SETTINGS.items()]


def revoke_role(role: str, member: str) -> str:
    """Ends a membership."""
    return f"REVOKE {identifier(role)} FROM {identifier(member)}"


def forbid_login(name: str) -> str:
    """Lets a role never log in again."""
    return f"ALTER ROLE {identifier(name)} NOLOGIN PASSWORD NULL"


def drop_role(name: str) -> str:
    """Drops a role that owns nothing any more."""
    return f"DROP ROLE IF EXISTS {identifier(name)}"


def drop_owned(name: str) -> str:
    """Drops what a role owns and holds in this database, so that the role can be dropped."""
    return f"DROP OWNED BY {identifier(name)}"


def create_schemas() -> list[str]:
    """The private schema and those of the functions that clients call, and that they are the owner role's."""
    owner = identifier(OWNER_ROLE)
    return [
        statement
        for name in ("pgmq_bus", "pgmq_bus_v1", "pgmq_bus_channel")
        for statement in (
            f"CREATE SCHEMA IF NOT EXISTS {name} AUTHORIZATION {owner}",
            f"ALTER SCHEMA {name} OWNER TO {owner}",
        )
    ]


def lock_relation(name: str) -> str:
    """Locks a relation of the registry against everybody else, to the end of the transaction."""
    if name == "membership":
        # LOCK TABLE would lock the tables below a view as well. This changes nothing and locks the view alone.
        return f"ALTER VIEW pgmq_bus.{identifier(name)} RESET (security_barrier)"
    return f"LOCK TABLE pgmq_bus.{identifier(name)} IN ACCESS EXCLUSIVE MODE"


def log_table(queue: str) -> str:
    """The quoted name, within the schema `pgmq`, of the table in which PGMQ keeps a queue."""
    return identifier(f"q_{queue}")


def drop_log(queue: str) -> str:
    """Drops the tables in which PGMQ keeps a queue: as their owner."""
    return f"DROP TABLE IF EXISTS pgmq.{log_table(queue)}, pgmq.{identifier(f'a_{queue}')}"


def log_sequence(queue: str) -> str:
    """The quoted name, within the schema `pgmq`, of the sequence of a queue's ids."""
    return identifier(f"q_{queue}_msg_id_seq")


def probe(template: str, names: Mapping[str, str]) -> str:
    """A probe about certain objects; `names` are quoted already."""
    return _filled(template, names)


def with_log(template: str, queue: str) -> str:
    """A statement about a log, which no parameter can name: `{{log}}` becomes its table."""
    return _filled(template, {"log": log_table(queue)})


def with_structure(template: str, structure: str) -> str:
    """A query about what another one returns: `{{structure}}` becomes that."""
    return _filled(template, {"structure": structure})


def set_log_persistence(queue: str, *, unlogged: bool) -> list[str]:
    """Rewrites a log, into the server's write-ahead log or out of it. Its sequence stays in there.

    The sequence first, and the table when everybody has let go of it: whoever reads looks at them in this order, and
    locking them the other way round would make deadlocks.
    """
    table = f"ALTER TABLE pgmq.{log_table(queue)} SET {'UNLOGGED' if unlogged else 'LOGGED'}"
    # It takes the sequence with it.
    return [log_the_sequence(queue), table, log_the_sequence(queue)]


def log_the_sequence(queue: str) -> str:
    """Puts a log's sequence into the server's write-ahead log, also if the log is not in there.

    Else it is unusable ("bad magic number") after a loss of power, or a promotion, that comes before the first
    checkpoint: PostgreSQL 15 copies the first page of an unlogged sequence from a file that it did not flush.
    """
    return f"ALTER SEQUENCE pgmq.{log_sequence(queue)} SET LOGGED"


def create_channel_functions(templates: Sequence[str], *, queue: str, role: str, channel_id: int) -> list[str]:
    """A channel's own functions, and that its role alone may execute them.

    Args:
        templates: Function definitions with `{{placeholders}}`.
        queue: The channel's queue.
        role: The channel's role.
        channel_id: The channel's number in the registry.
    """
    publish, read = map(identifier, channel_functions(queue))
    values = {
        "publish": publish,
        "read": read,
        "log": log_table(queue),
        "sequence": log_sequence(queue),
        "channel_id": f"{channel_id:d}",
    }
    return [
        *(_filled(template, values) for template in templates),
        *(
            statement
            for name in (publish, read)
            for statement in (
                f"REVOKE ALL ON FUNCTION pgmq_bus_channel.{name} FROM PUBLIC",
                f"GRANT EXECUTE ON FUNCTION pgmq_bus_channel.{name} TO {identifier(role)}",
            )
        ),
    ]


def _filled(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def grant_pgmq() -> list[str]:
    """What the owner role needs of PGMQ: to create, change and drop queues of its own."""
    owner = identifier(OWNER_ROLE)
    return [
        f"GRANT USAGE, CREATE ON SCHEMA pgmq TO {owner}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.meta TO {owner}",
    ]


def grant_connect(database: str) -> str:
    """Lets clients connect where the database does not let everyone."""
    return f"GRANT CONNECT ON DATABASE {identifier(database)} TO {identifier(CLIENT_ROLE)}"


def create_database(name: str, *, encoding: str, collation: str, ctype: str) -> str:
    """A database of the administrator's own that keeps text as another one does."""
    return (
        f"CREATE DATABASE {identifier(name)} TEMPLATE template0"
        f" ENCODING {literal(encoding)} LC_COLLATE {literal(collation)} LC_CTYPE {literal(ctype)}"
    )


def create_database_for(name: str, owner: str) -> str:
    """What a superuser may run in the place of an administrator without CREATEDB."""
    return f"CREATE DATABASE {identifier(name)} OWNER {identifier(owner)}"


def give_database(name: str, owner: str) -> str:
    """What its owner or a superuser may run so that a database becomes an administrator's."""
    return f"ALTER DATABASE {identifier(name)} OWNER TO {identifier(owner)}"


def allow_create_database(role: str) -> str:
    """What a superuser may run so that an administrator can create databases."""
    return f"ALTER ROLE {identifier(role)} CREATEDB"


def public_schema_create(*, allow: bool) -> str:
    """Lets the owner role put functions into `public`, or takes that away again."""
    owner = identifier(OWNER_ROLE)
    # Not even USAGE is everybody's where somebody has closed the schema.
    rights = "USAGE, CREATE ON SCHEMA public"
    return f"GRANT {rights} TO {owner}" if allow else f"REVOKE {rights} FROM {owner}"
