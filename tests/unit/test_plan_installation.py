"""What is done to a database, from what was observed in it."""

from dataclasses import replace

import pytest

from bus_operator.actions import (
    CreateGroupRole,
    GrantConnect,
    GrantOwnerToSelf,
    InstallFunctions,
    InstallPgmq,
    InstallSchema,
    MigrateSchema,
)
from bus_operator.catalog import ObservedDatabase
from bus_operator.errors import SpecError
from bus_operator.plan import plan_installation, stored_fingerprint

VERSION = 7
DIGEST = "shipped"

EMPTY = ObservedDatabase(
    server_version="15.3",
    server_version_num=150003,
    is_superuser=False,
    can_create_roles=True,
    pgmq_extension_version=None,
    pgmq_available_version=None,
    pgmq_installed=False,
    owner_role_exists=False,
    client_role_exists=False,
    owns_as_owner_role=False,
    client_may_connect=False,
    public_is_writable=False,
    schema_installed=False,
)
CURRENT = replace(
    EMPTY,
    pgmq_installed=True,
    owner_role_exists=True,
    client_role_exists=True,
    owns_as_owner_role=True,
    client_may_connect=True,
    schema_installed=True,
    schema_version=VERSION,
    actual_fingerprint="actual",
    installed_fingerprint=stored_fingerprint(DIGEST, "actual"),
    bundled_pgmq_version="1.13.0",
)


def plan(observed: ObservedDatabase, **changes):
    return plan_installation(replace(observed, **changes), VERSION, DIGEST)


def test_everything_in_the_order_in_which_it_works():
    assert plan(EMPTY) == [
        CreateGroupRole("pgmq_bus_owner"),
        CreateGroupRole("pgmq_bus_client"),
        GrantOwnerToSelf(),
        InstallPgmq(extension=False),
        GrantConnect(),
        InstallSchema(VERSION),
        InstallFunctions(VERSION, in_place=False),
    ]


def test_nothing_where_everything_is_current():
    assert plan(CURRENT) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema_version": 5}, [MigrateSchema(5, VERSION), InstallFunctions(VERSION, in_place=True)]),
        ({"installed_fingerprint": stored_fingerprint("older", "actual")}, [InstallFunctions(VERSION, in_place=True)]),
        ({"installed_fingerprint": None}, [InstallFunctions(VERSION, in_place=False)]),
        ({"actual_fingerprint": "tampered"}, [InstallFunctions(VERSION, in_place=False)]),
        ({"client_may_connect": False}, [GrantConnect()]),
        ({"pgmq_installed": False}, [InstallPgmq(extension=False)]),
        ({"pgmq_installed": False, "pgmq_available_version": "1.5"}, [InstallPgmq(extension=True)]),
        ({"pgmq_available_version": "1.5"}, []),
        ({"client_role_exists": False}, [CreateGroupRole("pgmq_bus_client")]),
        ({"owns_as_owner_role": False, "schema_version": None}, [GrantOwnerToSelf()]),
        (
            {"schema_version": None, "installed_fingerprint": None},
            [InstallSchema(VERSION), InstallFunctions(VERSION, in_place=False)],
        ),
    ],
)
def test_one_thing_missing(changes, expected):
    assert plan(CURRENT, **changes) == expected


def test_a_superuser_needs_no_membership():
    assert GrantOwnerToSelf() not in plan(EMPTY, is_superuser=True)


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"server_version": "14.12", "server_version_num": 140012}, "UnsupportedServer", "PostgreSQL 14.12 is too old"),
        ({"public_is_writable": True}, "PublicSchemaWritable", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
        (
            {"schema_version": VERSION + 1},
            "SchemaTooNew",
            f"version {VERSION + 1}, newer than this operator's {VERSION}",
        ),
    ],
)
@pytest.mark.parametrize("observed", [EMPTY, CURRENT], ids=["empty", "current"])
def test_what_only_a_person_can_change(observed, changes, reason, message):
    with pytest.raises(SpecError, match=message) as caught:
        plan(observed, **changes)
    assert caught.value.reason == reason


def test_a_pgmq_of_somebody_who_is_no_administrator():
    """Where the bus is not installed yet: it would run what he put there. Later it is drift."""
    with pytest.raises(SpecError, match="belongs to role app") as caught:
        plan(EMPTY, pgmq_belongs_to="app")
    assert caught.value.reason == "PublicSchemaWritable"
    assert plan(CURRENT, pgmq_belongs_to="app") == []


def test_the_oldest_server_that_is_supported():
    assert plan(EMPTY, server_version="15.0", server_version_num=150000)


def test_the_version_of_pgmq_in_use():
    assert CURRENT.pgmq_version == "1.13.0"
    assert replace(CURRENT, pgmq_extension_version="1.5").pgmq_version == "1.5"
    assert EMPTY.pgmq_version is None
