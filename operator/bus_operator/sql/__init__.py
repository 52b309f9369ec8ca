"""Loads the SQL of this folder; nowhere else is SQL text kept in Python.

- `schema.sql`: tables and the membership view at the current version.
- `migrations/NNNN_*.sql`: how an older installation becomes the current one, one step a file.
- `structure.txt`: what those consist of, as the catalog tells it; drift is what differs from that.
- `former/*.sql`: what prepares an older installation's functions for its migration.
- `functions/{core,v1,public}/*.sql`: one function a file, re-created at every installation.
- `channel/*.sql`: templates of the functions that each channel gets of its own, one a file; `render` fills them in.
- `privileges.sql`: who may call them.
- `probes/`: what a login tries when its isolation is verified.
- `queries/*.sql`: the statements of the operator, by name.
"""

import hashlib
import re
from functools import cache
from importlib.resources import files

_ROOT = files(__name__)

_CHANGES = re.compile(
    r"\b(?:alter table|drop view|create (?:or replace )?view|index (?:\w+ )?on|references|update|insert into) "
    r"pgmq_bus\.(\w+)",
    re.IGNORECASE,
)

FUNCTION_FOLDERS = ("core", "v1", "public")
"""In order: the functions of a later folder call those of an earlier one."""


@cache
def query(name: str) -> str:
    """The statement in `queries/<name>.sql`."""
    return _ROOT.joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")


@cache
def schema() -> str:
    """The table definitions of a fresh installation."""
    return _ROOT.joinpath("schema.sql").read_text(encoding="utf-8")


@cache
def structure() -> tuple[str, ...]:
    """What the private schema's relations consist of, one fact an entry, as `queries/structure.sql` finds it."""
    return tuple(_ROOT.joinpath("structure.txt").read_text(encoding="utf-8").splitlines())


@cache
def migrations() -> tuple[tuple[int, str], ...]:
    """All migrations as (version, SQL), oldest first; version n leads from n-1 to n."""
    found = [
        (int(entry.name.split("_", 1)[0]), entry.read_text(encoding="utf-8"))
        for entry in _ROOT.joinpath("migrations").iterdir()
        if entry.name.endswith(".sql")
    ]
    return tuple(sorted(found))


def changed_relations(migration: str) -> frozenset[str]:
    """The relations of the registry that a migration needs for itself, those that it makes among them."""
    return frozenset(_CHANGES.findall(migration))


@cache
def former(name: str) -> str:
    """The statements in `former/<name>.sql`."""
    return _ROOT.joinpath("former", f"{name}.sql").read_text(encoding="utf-8")


def schema_version() -> int:
    """The version that `schema.sql` is at."""
    return migrations()[-1][0]


@cache
def privileges() -> str:
    """Grants and revokes that belong to the functions."""
    return _ROOT.joinpath("privileges.sql").read_text(encoding="utf-8")


@cache
def functions() -> tuple[str, ...]:
    """The definitions of all functions, callees first."""
    return tuple(
        entry.read_text(encoding="utf-8")
        for folder in FUNCTION_FOLDERS
        for entry in sorted(_ROOT.joinpath("functions", folder).iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    )


@cache
def denied_probes() -> tuple[tuple[str, str, str], ...]:
    """What no login may do: name, what it is (the file's first line), and the statement."""
    folder = sorted(_ROOT.joinpath("probes", "denied").iterdir(), key=lambda entry: entry.name)
    texts = ((entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8")) for entry in folder)
    return tuple((name, *_titled(text)) for name, text in texts)


def _titled(text: str) -> tuple[str, str]:
    title, _, statement = text.partition("\n")
    return title.removeprefix("-- "), statement.strip()


@cache
def allowed_probe() -> str:
    """What every login may do, as one statement."""
    return _ROOT.joinpath("probes", "allowed.sql").read_text(encoding="utf-8")


@cache
def run_probes() -> str:
    """The statement that runs probes."""
    return _ROOT.joinpath("probes", "run.sql").read_text(encoding="utf-8")


@cache
def channel_functions() -> tuple[str, ...]:
    """The templates of a channel's own functions."""
    folder = sorted(_ROOT.joinpath("channel").iterdir(), key=lambda entry: entry.name)
    return tuple(entry.read_text(encoding="utf-8") for entry in folder if entry.name.endswith(".sql"))


def functions_digest() -> str:
    """A digest of the function texts and privileges that this operator ships."""
    return hashlib.sha256("\n".join((*functions(), privileges())).encode()).hexdigest()[:32]


def channel_functions_digest() -> str:
    """A digest of the templates of a channel's functions that this operator ships."""
    return hashlib.sha256("\n".join(channel_functions()).encode()).hexdigest()[:32]
