"""Migrations that landed are never edited, and later ones only widen the schema: clients go on meanwhile.

The rules are explained in docs/decisions/0013-expand-then-contract.md.
"""

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIGRATIONS = sorted((ROOT / "operator" / "bus_operator" / "sql" / "migrations").glob("*.sql"))
LANDED = ROOT / "tests" / "former" / "migrations.sha256"
PAGE = "docs/decisions/0013-expand-then-contract.md"

FIRST_UNDER_THE_RULES = 4
"""Earlier migrations made the first schema that anybody used."""

ALLOWED = {
    "create (unlogged )?table pgmq_bus\\.": "a new table",
    "create (unique )?index ": "a new index",
    "create view pgmq_bus\\.": "a new view; the one there is, clients ask for while they hold a table",
    "comment on ": "a comment",
    "insert into pgmq_bus\\.": "rows of a new table",
    "update pgmq_bus\\.": "values of a new column",
    "alter table pgmq_bus\\.": "more columns, or wider constraints",
}
ALLOWED_IN_A_TABLE = {
    "add column ": "a column that is null, or has a constant default",
    "drop constraint ": "a wider constraint, together with the next",
    "add constraint ": "see the one before",
    "alter column \\w+ (set default|drop default|drop not null)": "what new rows get",
    "set \\(": "storage",
}
VOLATILE = re.compile("default .*(random|clock_timestamp|nextval|generate)|generated (always|by default) as")
"""Each row would be rewritten under the lock that keeps everybody out."""


SQL = ROOT / "operator" / "bus_operator" / "sql"


def functions() -> list[str]:
    """The texts of all functions, without comments."""
    paths = (*SQL.glob("functions/*/*.sql"), *SQL.glob("channel/*.sql"))
    return [re.sub(r"--[^\n]*", "", path.read_text()) for path in paths]


def variables(table: str) -> set[str]:
    """What functions that use a table call their variables, parameters and results."""
    found: set[str] = set()
    for text in functions():
        if re.search(rf"\bpgmq_bus\.{table}\b", text):
            for block in re.findall(r"\bdeclare\b(.*?)\bbegin\b", text, re.DOTALL):
                found |= set(re.findall(r"(?:^|;)\s*(\w+) ", block))
            head = text.partition("language ")[0]
            found |= set(re.findall(r"[(,]\s*(?:out )?(\w+) (?:text|bigint|integer|boolean|jsonb)", head))
    return found


def statements(text: str) -> list[str]:
    """A migration's statements, in one line each, without comments, strings and the last semicolon."""
    text = re.sub(r"--[^\n]*", "", text)
    text = re.sub(r"'(?:[^']|'')*'", "''", text)
    return [" ".join(part.split()).lower() for part in text.split(";") if part.strip()]


def parts_of(statement: str) -> list[str]:
    """What an ALTER TABLE does, split at the commas outside parentheses."""
    _, _, rest = statement.partition("pgmq_bus.")
    rest = rest.partition(" ")[2]
    parts, depth, begin = [], 0, 0
    for position, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append(rest[begin:position].strip())
            begin = position + 1
    return [*parts, rest[begin:].strip()]


def breaches(text: str) -> list[str]:
    """What a migration does that it must not."""
    found = []
    for statement in statements(text):
        if not any(re.match(pattern, statement) for pattern in ALLOWED):
            found.append(f"{statement[:100]}: not among {list(ALLOWED)}")
        elif re.search(r"\bpgmq\.", statement):
            found.append(f"{statement[:100]}: touches a log, which may be large and is written all the time")
        elif statement.startswith("alter table"):
            table = statement.partition("pgmq_bus.")[2].partition(" ")[0]
            for part in parts_of(statement):
                if not any(re.match(pattern, part) for pattern in ALLOWED_IN_A_TABLE):
                    found.append(f"{part[:100]}: not among {list(ALLOWED_IN_A_TABLE)}")
                elif part.startswith("add column") and part.split()[2] in variables(table):
                    found.append(
                        f"{part[:100]}: functions have a variable of that name, and what they mean gets ambiguous"
                    )
                elif part.startswith("add column") and VOLATILE.search(part):
                    found.append(f"{part[:100]}: its default rewrites each row")
                elif part.startswith("add column") and "not null" in part and " default " not in part:
                    found.append(f"{part[:100]}: an older operator inserts rows without it")
    return found


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda path: path.name)
def test_a_landed_migration_is_as_it_landed(migration: Path) -> None:
    digests = {name: digest for digest, name in (line.split() for line in LANDED.read_text().splitlines())}
    digest = hashlib.sha256(migration.read_bytes()).hexdigest()
    assert migration.name in digests, (
        f"new? From the commit that lands it on it stays as it is: append to {LANDED.relative_to(ROOT)}\n"
        f"{digest}  {migration.name}"
    )
    assert digest == digests[migration.name], (
        f"{migration.name} ran in databases as it was, and never runs there again: put the change into a new migration"
    )


def test_no_landed_migration_is_gone() -> None:
    landed = [line.split()[1] for line in LANDED.read_text().splitlines()]
    assert landed == [path.name for path in MIGRATIONS]
    assert [int(name[:4]) for name in landed] == list(range(1, len(landed) + 1))


def test_migrations_only_widen() -> None:
    for migration in MIGRATIONS[FIRST_UNDER_THE_RULES - 1 :]:
        found = breaches(migration.read_text())
        assert not found, (
            f"{migration.name} would disturb clients, or an operator of the version before; see {PAGE}:\n"
            + "\n".join(found)
        )


@pytest.mark.parametrize(
    "harmful",
    [
        "drop table pgmq_bus.login",
        "drop view pgmq_bus.membership",
        "create or replace view pgmq_bus.membership as select 1",
        "alter table pgmq_bus.peer drop column host",
        "alter table pgmq_bus.peer add column a text, rename column host to machine",
        "alter table pgmq_bus.peer alter column host set not null",
        "alter table pgmq_bus.peer alter column host type name",
        "alter table pgmq_bus.peer add column secret text default gen_random_uuid()::text",
        "alter table pgmq_bus.peer add column n bigint generated always as identity",
        "alter table pgmq_bus.login add column state text not null",
        "alter table pgmq.q_bus_1 add column a text",
        "create index on pgmq.q_bus_1 (vt)",
        "alter table pgmq_bus.channel_state add column more boolean",
        "alter table pgmq_bus.peer add column lost_to text, add column bytes bigint",
        "do $$ begin null; end $$",
        "delete from pgmq_bus.peer",
        "lock table pgmq_bus.peer",
    ],
)
def test_what_a_migration_must_not_do(harmful: str) -> None:
    assert breaches(f"-- Why.\n{harmful};\n")


def test_variables_are_found() -> None:
    assert variables("channel_state") >= {"more", "floor", "state", "target", "batch", "p_channel_id"}
    assert variables("peer") >= {"durable_name", "found_there", "p_about", "roster", "ids", "p_own"}
    assert variables("login") == set()


def test_what_a_migration_may_do() -> None:
    assert not breaches(
        """
        -- Version 9: logins have a state; drop table is only a word here.
        create table pgmq_bus.more (channel_id integer primary key references pgmq_bus.channel on delete cascade);
        insert into pgmq_bus.more select id from pgmq_bus.channel;
        alter table pgmq_bus.login
            add column state text not null default 'Current' check (state in ('Current', 'Former')),
            add column seen_at timestamptz,
            drop constraint login_generation_check,
            add constraint login_generation_check check (generation > 0),
            set (fillfactor = 50);
        update pgmq_bus.login set seen_at = created_at;
        create view pgmq_bus.waiting as select role from pgmq_bus.login;
        comment on column pgmq_bus.login.state is 'drop table; rename column';
        """
    )
