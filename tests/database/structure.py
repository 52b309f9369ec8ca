"""What is installed in a database, to compare two."""

import asyncpg

_OURS = "relnamespace = 'pgmq_bus'::regnamespace"
_STRUCTURE = {
    "columns": f"""
        select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
            a.attgenerated::text, a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid),
            col_description(c.oid, a.attnum), a.attacl::text
        from pg_attribute as a join pg_class as c on c.oid = a.attrelid
        left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.{_OURS} and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped
        order by 1, 2""",
    "relations": f"""
        select relname, relkind::text, relowner::regrole::text, relpersistence::text, reloptions, relacl::text,
            obj_description(oid)
        from pg_class where {_OURS} order by 1""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'pgmq_bus'::regnamespace order by 1, 2""",
    "indexes": f"""
        select indexrelid::regclass::text, pg_get_indexdef(indexrelid)
        from pg_index where indrelid in (select oid from pg_class where {_OURS}) order by 1""",
    "views": f"select relname, pg_get_viewdef(oid) from pg_class where {_OURS} and relkind = 'v' order by 1",
    "functions": """
        select oid::regprocedure::text, pg_get_functiondef(oid), proowner::regrole::text, proacl::text
        from pg_proc where pronamespace::regnamespace::text in ('pgmq_bus', 'pgmq_bus_v1', 'public') order by 1""",
    "schemas": """
        select nspname, nspowner::regrole::text, nspacl::text
        from pg_namespace where nspname ~ 'pgmq_bus' order by 1""",
    "default privileges": """
        select defaclrole::regrole::text, defaclobjtype::text, defaclacl::text from pg_default_acl order by 1""",
}


async def structure(admin: asyncpg.Connection) -> dict[str, list[tuple]]:
    """By part."""
    return {part: [tuple(row) for row in await admin.fetch(query)] for part, query in _STRUCTURE.items()}
