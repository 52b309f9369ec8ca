"""What clients and former functions call is there as they call it: names, arguments, results.

tests/former/functions.txt has what landed; docs/decisions/0013-expand-then-contract.md says who relies on it.
"""

from pathlib import Path

import postgres

LANDED = Path(__file__).parents[1] / "former" / "functions.txt"
SIGNATURES = """
select format(
    '%s.%s(%s) returns %s',
    n.nspname, regexp_replace(p.proname, '_[0-9a-f]{12}$', '_<token>'), pg_get_function_arguments(p.oid),
    pg_get_function_result(p.oid)
) as signature
from pg_proc as p
join pg_namespace as n on n.oid = p.pronamespace
where n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel') or n.nspname = 'public' and p.proname like 'bus\\_%'
"""


async def test_the_functions_are_those_that_landed(database: postgres.Database) -> None:
    await database.create_channel()
    async with database.session() as session:
        live = {row["signature"] for row in await session.fetch(SIGNATURES)}
    landed = set(LANDED.read_text().splitlines())
    missing, new = sorted(landed - live), sorted(live - landed)
    assert not missing, (
        "clients of earlier versions, and functions that are replaced later, still call these: keep them, and "
        "give what is different another name:\n" + "\n".join(missing)
    )
    assert not new, f"new ones are relied on from now on: add these lines to {LANDED.name}:\n" + "\n".join(new)
