-- PUBLIC has no privilege on anything that initdb did not give it, but on the functions of PGMQ, whose schema it cannot
-- use. What initdb gave and took is in pg_init_privs; where there is no entry, the default of the kind holds.
with everything as (
    select 'pg_proc'::regclass as classid, p.oid, p.proacl as acl, acldefault('f', p.proowner) as usual, n.nspname
    from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
    union all
    select 'pg_class', c.oid, c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner), n.nspname
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    union all
    -- A type's usual privilege gives nothing where its schema cannot be used.
    select 'pg_type', t.oid, t.typacl, acldefault('T', t.typowner), n.nspname
    from pg_type as t join pg_namespace as n on n.oid = t.typnamespace
    where t.typacl is not null
    union all
    select 'pg_namespace', n.oid, n.nspacl, acldefault('n', n.nspowner), n.nspname from pg_namespace as n
    union all
    select 'pg_language', l.oid, l.lanacl, acldefault('l', l.lanowner), 'pg_catalog' from pg_language as l
    union all
    select 'pg_database', b.oid, b.datacl, acldefault('d', b.datdba), 'pg_catalog' from pg_database as b where b.datallowconn
    union all
    select 'pg_tablespace', t.oid, t.spcacl, acldefault('t', t.spcowner), 'pg_catalog' from pg_tablespace as t
    union all
    select 'pg_foreign_data_wrapper', f.oid, f.fdwacl, acldefault('F', f.fdwowner), 'pg_catalog' from pg_foreign_data_wrapper as f
    union all
    select 'pg_foreign_server', s.oid, s.srvacl, acldefault('S', s.srvowner), 'pg_catalog' from pg_foreign_server as s
    union all
    select 'pg_parameter_acl', p.oid, p.paracl, acldefault('p', 10), 'pg_catalog' from pg_parameter_acl as p
    union all
    select 'pg_largeobject_metadata', l.oid, l.lomacl, acldefault('L', l.lomowner), 'pg_catalog' from pg_largeobject_metadata as l
),
granted as (
    select e.classid, e.oid, e.nspname, a.privilege_type
    from everything as e
    cross join lateral aclexplode(coalesce(e.acl, e.usual)) as a
    where a.grantee = 0 and (e.acl is not null or e.oid >= 16384)
),
given_by_initdb as (
    select e.classid, e.oid, a.privilege_type
    from everything as e
    left join pg_init_privs as i on i.classoid = e.classid and i.objoid = e.oid and i.objsubid = 0
    cross join lateral aclexplode(coalesce(i.initprivs, e.usual)) as a
    where a.grantee = 0 and e.acl is not null and (e.oid < 16384 or e.classid = 'pg_database'::regclass)
)
select format('%s: %s granted to PUBLIC', pg_describe_object(g.classid, g.oid, 0), g.privilege_type)
from granted as g
left join given_by_initdb as i on i.classid = g.classid and i.oid = g.oid and i.privilege_type = g.privilege_type
where i.oid is null
    -- A database that nobody granted anything on has the usual privileges.
    and not (g.classid = 'pg_database'::regclass and g.privilege_type in ('CONNECT', 'TEMPORARY'))
    and not (g.nspname = 'pgmq' and g.classid = 'pg_proc'::regclass)
    -- Its privileges are given after what pg_init_privs remembers.
    and not (g.nspname = 'information_schema' and g.oid < 16384 and g.privilege_type in ('SELECT', 'USAGE'))
union all
select format('column %s of %s: a privilege granted to PUBLIC', a.attname, a.attrelid::regclass)
from pg_attribute as a
cross join lateral aclexplode(a.attacl) as g
left join pg_init_privs as i on i.classoid = 'pg_class'::regclass and i.objoid = a.attrelid and i.objsubid = a.attnum
where g.grantee = 0 and i.objoid is null
