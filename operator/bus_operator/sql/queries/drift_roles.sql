-- Roles that are not what they were made, or are members of what they should not be. Columns: see drift_functions.sql.
-- $1: one channel's id, or null for everything. $2: the session defaults of a login, as the catalog has them. $3: connections that
-- each login has beyond its channel's limit.
-- Roles belong to the whole server: of a channel's role that this registry does not know, another database's may.
with own as (
    select 'pgmq_bus_owner'::name as role, 'group' as kind, null::text as channel, null::integer as connections, null::name as member_of
    where $1::integer is null
    union all
    select 'pgmq_bus_client', 'group', null, null, null
    where $1::integer is null
    union all
    select c.role, 'channel', c.name, null, 'pgmq_bus_client'
    from pgmq_bus.channel as c
    where $1::integer is null or c.id = $1
    union all
    -- One without a verifier is retired: a name that could not be dropped.
    select l.role, case when l.verifier = '' then 'retired' else 'login' end, c.name, c.max_connections + $3, c.role
    from pgmq_bus.login as l
    join pgmq_bus.channel as c on c.id = l.channel_id
    where $1::integer is null or c.id = $1
),
roles as (
    select o.*, r.oid, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication, r.rolbypassrls,
        r.rolconnlimit, r.rolvaliduntil, 'role ' || o.role as object
    from own as o
    left join pg_roles as r on r.rolname = o.role
),
edges as (
    select
        m.roleid, m.member, g.rolname as role, w.rolname as holder, w.rolsuper or w.rolcreaterole or w.rolname = current_user as administers,
        w.rolcanlogin, bool_or(m.admin_option) as admin_option,
        -- From PostgreSQL 16 on a membership may give nothing.
        bool_or(coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)) as inherits
    from pg_auth_members as m
    join pg_roles as g on g.oid = m.roleid
    join pg_roles as w on w.oid = m.member
    group by m.roleid, m.member, g.rolname, w.rolname, w.rolsuper, w.rolcreaterole, w.rolcanlogin
),
settings as (
    select r.channel, r.role, r.object, r.kind, s.setdatabase,
        -- Keepalives harm nobody: logins of former versions have none.
        array(select f.setting from unnest(s.setconfig) as f (setting) where f.setting !~ '^tcp_') as found,
        case when r.kind = 'login' and s.setdatabase = 0 then $2::text[] else '{}' end as wanted
    from roles as r
    join lateral (
        select s.setdatabase, s.setconfig from pg_db_role_setting as s
        where s.setrole = r.oid and s.setdatabase in (0, (select b.oid from pg_database as b where b.datname = current_database()))
        union all
        select 0, '{}'
        where r.kind = 'login' and not exists (select from pg_db_role_setting as s where s.setrole = r.oid and s.setdatabase = 0)
    ) as s on true
    where r.oid is not null and r.kind <> 'retired'
)
select r.channel, r.object, 'is missing' as problem,
    case r.kind when 'group' then 'functions' when 'channel' then 'role' else 'credential' end as repair, null as statement
from roles as r
where r.oid is null and r.kind <> 'retired'
union all
select r.channel, r.object, 'has ' || a.name, 'statement', format('alter role %I no%s', r.role, a.name)
from roles as r
cross join lateral (
    values
        ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb), ('REPLICATION', r.rolreplication),
        ('BYPASSRLS', r.rolbypassrls), ('LOGIN', r.rolcanlogin and r.kind <> 'login')
) as a (name, given)
where a.given
union all
select r.channel, r.object, 'has NO' || a.name, 'statement', format('alter role %I %s', r.role, a.name)
from roles as r
cross join lateral (values ('INHERIT', r.rolinherit), ('LOGIN', r.rolcanlogin or r.kind <> 'login')) as a (name, given)
where not a.given
union all
select
    r.channel, r.object, format('has CONNECTION LIMIT %s instead of %s', r.rolconnlimit, coalesce(r.connections, -1)), 'statement',
    format('alter role %I connection limit %s', r.role, coalesce(r.connections, -1))
from roles as r
where r.kind <> 'retired' and r.rolconnlimit <> coalesce(r.connections, -1)
union all
select
    r.channel, r.object, format('is VALID UNTIL %s', r.rolvaliduntil), 'statement', format('alter role %I valid until ''infinity''', r.role)
from roles as r
where r.rolvaliduntil <> 'infinity'
union all
select
    s.channel, s.object,
    format(
        'its session defaults%s are (%s) instead of (%s)', case when s.setdatabase <> 0 then ' in this database' end,
        -- A login can set its own to whatever it likes: of any length, and on several lines.
        left(translate(array_to_string(s.found, '; '), E'\r\n', '  '), 500), array_to_string(s.wanted, '; ')
    ),
    case when s.kind = 'login' then 'settings' else 'statement' end,
    format('alter role %I%s reset all', s.role, case when s.setdatabase <> 0 then format(' in database %I', current_database()) end)
from settings as s
where not (s.found @> s.wanted and s.found <@ s.wanted)
union all
-- What it should be a member of.
select r.channel, r.object, format('is no member of %s', r.member_of), 'statement', format('grant %I to %I', r.member_of, r.role)
from roles as r
join pg_roles as g on g.rolname = r.member_of
left join edges as e on e.member = r.oid and e.roleid = g.oid
where r.oid is not null and r.kind <> 'retired' and e.inherits is not true
union all
select
    r.channel, r.object, format('is a member of %s WITH ADMIN OPTION', e.role), 'statement',
    format('revoke admin option for %I from %I cascade', e.role, r.role)
from roles as r
join edges as e on e.member = r.oid
where r.kind <> 'retired' and e.role = r.member_of and e.admin_option
union all
-- What it should not be a member of.
select r.channel, r.object, format('is a member of %s', e.role), 'statement', format('revoke %I from %I cascade', e.role, r.role)
from roles as r
join edges as e on e.member = r.oid
where e.role is distinct from r.member_of or r.kind = 'retired'
union all
-- Who should not be a member of it.
select
    r.channel, 'role ' || e.holder, format('is a member of %s', r.role),
    case when l.token is not null then 'drop login' else 'statement' end,
    case when l.token is not null then e.holder else format('revoke %I from %I cascade', r.role, e.holder) end
from roles as r
join edges as e on e.roleid = r.oid
left join lateral (select replace(r.role, 'bus_channel_', '') as token) as l
    on r.kind = 'channel' and e.holder ~ ('^bus_login_' || l.token || '_g[0-9]+$')
where not e.administers and e.holder not in (select o.role from own as o)
    and not (r.role = 'pgmq_bus_client' and not e.rolcanlogin and e.holder ~ '^bus_channel_[0-9a-f]{12}$')
