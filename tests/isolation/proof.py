"""The static proof: what the catalog must say of a database with the bus, one file of proof/ a subject.

Each file is one query, which returns what is wrong, one sentence a row, and nothing where all is well. It needs a
superuser and no parameters: `psql -f` shows the same.
"""

from pathlib import Path

import asyncpg

QUERIES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "proof").glob("*.sql"))}


async def find_violations(admin: asyncpg.Connection) -> dict[str, set[str]]:
    """All that is wrong, by the query that says so."""
    found = {name: {sentence for (sentence,) in await admin.fetch(query)} for name, query in QUERIES.items()}
    return {name: sentences for name, sentences in found.items() if sentences}
