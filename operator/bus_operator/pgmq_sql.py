"""The SQL of PGMQ that the `pgmq` package brings, read without importing it: that takes half a second, and psycopg."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path


def install_sql() -> str:
    """What installs PGMQ where the server has no extension."""
    return (_directory() / "pgmq.sql").read_text()


@cache
def version() -> str:
    """Of which version of PGMQ that is."""
    lines = (_directory() / "VERSION").read_text().splitlines()
    return next(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _directory() -> Path:
    spec = find_spec("pgmq")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("no package pgmq: pip install '.[operator]' in a checkout of pgmq-bus brings it")
    return Path(spec.submodule_search_locations[0]) / "sql"
