-- Our schemas, the way into `public`, what else client roles were granted, and default privileges. Columns: see drift_functions.sql.
-- $1: one channel's id, or null for everything.
with ours (name, usage) as (
    values ('pgmq_bus', null), ('pgmq_bus_v1', 'pgmq_bus_client'), ('pgmq_bus_channel', 'pgmq_bus_client')
),
schemas as (
    select n.oid, o.name, o.usage, n.nspacl, n.nspowner, r.rolname as owner
    from ours as o
    left join pg_namespace as n on n.nspname = o.name
    left join pg_roles as r on r.oid = n.nspowner
    where $1::integer is null
),
clients as (
    select r.oid, r.rolname, null as channel from pg_roles as r where r.rolname = 'pgmq_bus_client' and $1::integer is null
    union all
    select r.oid, r.rolname, c.name
    from pgmq_bus.channel as c
    left join pgmq_bus.login as l on l.channel_id = c.id
    join pg_roles as r on r.rolname in (c.role, l.role)
    where $1::integer is null or c.id = $1
),
granted as (
    select distinct on (c.oid, d.classid, d.objid)
        c.channel, c.rolname, d.classid::regclass::text as class, d.objid, i.type,
        case d.classid
            when 'pg_proc'::regclass then d.objid::regprocedure::text
            when 'pg_class'::regclass then d.objid::regclass::text
            when 'pg_largeobject_metadata'::regclass then d.objid::text
            else i.identity
        end as identity
    from clients as c
    join pg_shdepend as d on d.refclassid = 'pg_authid'::regclass and d.refobjid = c.oid and d.deptype = 'a'
    cross join lateral pg_identify_object(d.classid, d.objid, 0) as i
    where d.dbid in (0, (select b.oid from pg_database as b where b.datname = current_database()))
        and case d.classid
            when 'pg_auth_members'::regclass then false
            -- CONNECT is all right; what there is more is looked for below.
            when 'pg_database'::regclass then false
            when 'pg_namespace'::regclass then
                d.objid not in (select s.oid from schemas as s where s.oid is not null)
                and not exists (
                    select from pg_namespace as n
                    where n.oid = d.objid
                        and (n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel') or n.nspname = 'public' and c.channel is null)
                )
            when 'pg_proc'::regclass then not exists (
                select from pg_proc as p
                join pg_namespace as n on n.oid = p.pronamespace
                where p.oid = d.objid
                    and (
                        n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
                        or n.nspname = 'public'
                        and p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
                    )
            )
            when 'pg_class'::regclass then not exists (
                select from pg_class as t
                join pg_namespace as n on n.oid = t.relnamespace
                where t.oid = d.objid and (n.nspname = 'pgmq_bus' or n.nspname = 'pgmq' and t.relname ~ '^[qa]_bus_[0-9a-f]{12}')
            )
            else true
        end
        -- What clients share of their own they may, and it takes nothing from anybody.
        and coalesce(i.schema, '') !~ '^"?pg_temp'
        and not exists (
            select from pg_roles as w
            where w.rolname ~ '^(bus_(channel|login)_[0-9a-f]{12}|pgmq_bus_client$)'
                and w.oid = case d.classid
                    when 'pg_largeobject'::regclass then
                        (select o.lomowner from pg_largeobject_metadata as o where o.oid = d.objid)
                    when 'pg_default_acl'::regclass then (select a.defaclrole from pg_default_acl as a where a.oid = d.objid)
                end
        )
)
select null as channel, 'schema ' || s.name as object, 'is missing' as problem, 'functions' as repair, null as statement
from schemas as s
where s.oid is null
union all
select null, 'schema ' || s.name, format('belongs to %s', s.owner), 'statement', format('alter schema %I owner to pgmq_bus_owner', s.name)
from schemas as s
where s.owner <> 'pgmq_bus_owner'
union all
select
    null, 'schema ' || s.name, format('%s granted to %s', g.privilege_type, coalesce(r.rolname, 'PUBLIC')), 'statement',
    format('revoke %s on schema %I from %s cascade', g.privilege_type, s.name, case when g.grantee = 0 then 'public' else quote_ident(r.rolname) end)
from schemas as s
cross join lateral aclexplode(s.nspacl) as g
left join pg_roles as r on r.oid = g.grantee
where g.grantee <> s.nspowner and (coalesce(r.rolname, 'PUBLIC') is distinct from s.usage or g.privilege_type <> 'USAGE')
union all
select null, 'schema ' || s.name, format('USAGE revoked from %s', s.usage), 'statement', format('grant usage on schema %I to %I', s.name, s.usage)
from schemas as s
join pg_roles as r on r.rolname = s.usage
where s.oid is not null and not exists (
    select from aclexplode(s.nspacl) as g where g.grantee = r.oid and g.privilege_type = 'USAGE'
)
union all
select
    null, 'schema public', 'USAGE revoked from PUBLIC, and clients have none of their own', 'statement',
    'grant usage on schema public to pgmq_bus_client'
from pg_namespace as n
join pg_roles as r on r.rolname = 'pgmq_bus_client'
where $1::integer is null and n.nspname = 'public' and not has_schema_privilege(r.oid, n.oid, 'USAGE')
union all
select
    null, 'schema public', format('CREATE granted to %s', r.rolname), 'statement', format('revoke create on schema public from %I', r.rolname)
from pg_namespace as n
cross join lateral aclexplode(n.nspacl) as g
join pg_roles as r on r.oid = g.grantee
where $1::integer is null and n.nspname = 'public' and g.privilege_type = 'CREATE' and r.rolname in ('pgmq_bus_owner', 'pgmq_bus_client')
union all
select
    null, format('database %s', b.datname), 'CONNECT revoked from pgmq_bus_client', 'statement',
    format('grant connect on database %I to pgmq_bus_client', b.datname)
from pg_database as b
join pg_roles as r on r.rolname = 'pgmq_bus_client'
where $1::integer is null and b.datname = current_database() and not has_database_privilege(r.oid, b.oid, 'CONNECT')
union all
select
    c.channel, format('database %s', b.datname), format('%s granted to %s', g.privilege_type, c.rolname), 'statement',
    format('revoke %s on database %I from %I', g.privilege_type, b.datname, c.rolname)
from pg_database as b
cross join lateral aclexplode(b.datacl) as g
join clients as c on c.oid = g.grantee
where b.datname = current_database() and (g.privilege_type <> 'CONNECT' or c.channel is not null)
union all
select
    g.channel, format('%s %s', g.type, g.identity), format('a privilege granted to %s', g.rolname),
    case when g.class in ('pg_class', 'pg_proc', 'pg_namespace', 'pg_largeobject_metadata', 'pg_parameter_acl', 'pg_type', 'pg_language',
        'pg_foreign_data_wrapper', 'pg_foreign_server', 'pg_tablespace') then 'statement' else 'report' end,
    format(
        'revoke all on %s %s from %I',
        case g.class
            when 'pg_class' then case when g.type = 'sequence' then 'sequence' else 'table' end
            when 'pg_proc' then 'routine'
            when 'pg_namespace' then 'schema'
            when 'pg_largeobject_metadata' then 'large object'
            when 'pg_parameter_acl' then 'parameter'
            when 'pg_type' then 'type'
            when 'pg_language' then 'language'
            when 'pg_foreign_data_wrapper' then 'foreign data wrapper'
            when 'pg_foreign_server' then 'foreign server'
            else g.type
        end,
        g.identity, g.rolname
    )
from granted as g
union all
select
    null, 'default privileges of pgmq_bus_owner', 'functions it creates would be open to PUBLIC', 'statement',
    'alter default privileges for role pgmq_bus_owner revoke execute on functions from public'
from pg_roles as o
where $1::integer is null and o.rolname = 'pgmq_bus_owner' and not exists (
    select from pg_default_acl as d
    where d.defaclrole = o.oid and d.defaclnamespace = 0 and d.defaclobjtype = 'f'
        and not exists (select from aclexplode(d.defaclacl) as g where g.grantee = 0)
)
union all
select
    null, format('default privileges of %s%s', o.rolname, ' in schema ' || n.nspname),
    format('%s on new objects granted to %s', g.privilege_type, coalesce(r.rolname, 'PUBLIC')), 'statement',
    format(
        'alter default privileges for role %I%s revoke all on %s from %s',
        o.rolname, ' in schema ' || quote_ident(n.nspname),
        case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' else 'schemas' end,
        case when g.grantee = 0 then 'public' else quote_ident(r.rolname) end
    )
from pg_default_acl as d
join pg_roles as o on o.oid = d.defaclrole
left join pg_namespace as n on n.oid = d.defaclnamespace
cross join lateral aclexplode(d.defaclacl) as g
left join pg_roles as r on r.oid = g.grantee
where $1::integer is null and g.grantee <> d.defaclrole
    and (
        o.rolname = 'pgmq_bus_owner' and not (n.oid is null and d.defaclobjtype = 'T' and g.grantee = 0)
        or n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
    )
