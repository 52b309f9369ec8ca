-- Nobody but the owner role can put anything into our schemas, and nobody at all into those that our functions look in; clients can
-- name what is in two of ours.
with ours (name, usage) as (
    values ('pgmq_bus', null), ('pgmq_bus_v1', 'pgmq_bus_client'), ('pgmq_bus_channel', 'pgmq_bus_client')
),
granted as (
    select n.oid, n.nspname, n.nspowner, a.grantee, a.privilege_type, a.is_grantable
    from pg_namespace as n
    cross join lateral aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) as a
)
select format('schema %s is missing', o.name) from ours as o where not exists (select from pg_namespace as n where n.nspname = o.name)
union all
select format('schema %s belongs to %s', n.nspname, n.nspowner::regrole)
from pg_namespace as n
join ours as o on o.name = n.nspname
where n.nspowner <> 'pgmq_bus_owner'::regrole
union all
select format('schema %s: %s granted to %s', g.nspname, g.privilege_type, replace(g.grantee::regrole::text, '-', 'PUBLIC'))
from granted as g
join ours as o on o.name = g.nspname
where g.grantee <> g.nspowner and (g.grantee::regrole::text is distinct from o.usage or g.privilege_type <> 'USAGE' or g.is_grantable)
union all
-- From here functions of the bus and clients' statements get what they name without a schema.
select format('schema %s: CREATE granted to %s', g.nspname, replace(g.grantee::regrole::text, '-', 'PUBLIC'))
from granted as g
where g.nspname in ('pg_catalog', 'information_schema', 'public', 'pgmq') and g.privilege_type = 'CREATE'
    and g.grantee <> g.nspowner and g.grantee <> 'pgmq_bus_owner'::regrole
union all
select 'schema public: the owner role may create there' from pg_namespace as n
where n.nspname = 'public' and has_schema_privilege('pgmq_bus_owner', n.oid, 'CREATE')
union all
select format('schema pgmq: USAGE granted to %s', replace(g.grantee::regrole::text, '-', 'PUBLIC'))
from granted as g
where g.nspname = 'pgmq' and g.grantee not in (g.nspowner, 'pgmq_bus_owner'::regrole)
    -- From PGMQ, for its metrics; clients are no members: see roles.sql.
    and not (g.grantee = 'pg_monitor'::regrole and g.privilege_type = 'USAGE')
