-- The functions of the bus are these, with these owners, settings and privileges; what is not among them, such as an overload, is
-- none of ours. Nothing in them means something else in a session with other settings: no backslash, which
-- standard_conforming_strings = off would read as an escape.
with shipped (schema, name, arguments, callers) as (
    values
        ('public', 'bus_join', 'text', 'clients'),
        ('public', 'bus_publish', 'text, text, jsonb', 'clients'),
        ('public', 'bus_subscribe', 'text, text, integer, integer, integer', 'clients'),
        ('public', 'bus_archive', 'text, text, bigint', 'clients'),
        ('public', 'bus_leave', 'text, text', 'clients'),
        ('pgmq_bus_v1', 'join_channel', 'text, jsonb', 'clients'),
        ('pgmq_bus_v1', 'leave', 'text, text', 'clients'),
        ('pgmq_bus_v1', 'notify', 'text, text', 'clients'),
        ('pgmq_bus_v1', 'publish', 'text, text, jsonb[]', 'clients'),
        ('pgmq_bus_v1', 'read', 'text, text, bigint, bigint, integer, integer', 'clients'),
        ('pgmq_bus_v1', 'roster', 'text, text', 'clients'),
        ('pgmq_bus_v1', 'wake_by', 'text, text, text, boolean', 'clients'),
        ('pgmq_bus', 'acknowledge', 'pgmq_bus.membership, bigint', 'nobody'),
        ('pgmq_bus', 'age_after', 'text, bigint', 'nobody'),
        ('pgmq_bus', 'append', 'text, text, jsonb', 'nobody'),
        ('pgmq_bus', 'change_roster', 'integer', 'nobody'),
        ('pgmq_bus', 'commit_lazily', '', 'nobody'),
        ('pgmq_bus', 'deny', 'text', 'nobody'),
        ('pgmq_bus', 'enter', 'text, jsonb, boolean', 'nobody'),
        ('pgmq_bus', 'exit', 'text, text', 'nobody'),
        ('pgmq_bus', 'fetch', 'pgmq_bus.membership, bigint, integer, integer', 'nobody'),
        ('pgmq_bus', 'given_between', 'integer, bigint, bigint', 'nobody'),
        ('pgmq_bus', 'head', 'integer', 'nobody'),
        ('pgmq_bus', 'heartbeat', 'pgmq_bus.membership', 'nobody'),
        ('pgmq_bus', 'lock_channel', 'integer', 'nobody'),
        ('pgmq_bus', 'measure', 'pgmq_bus.channel, pgmq_bus.channel_state, bigint', 'nobody'),
        ('pgmq_bus', 'note_lost', 'integer, text, bigint, bigint', 'nobody'),
        ('pgmq_bus', 'notify_listeners', 'text', 'nobody'),
        ('pgmq_bus', 'recover', 'integer', 'nobody'),
        ('pgmq_bus', 'require_address', 'text', 'nobody'),
        ('pgmq_bus', 'require_range', 'text, bigint, bigint, bigint', 'nobody'),
        ('pgmq_bus', 'retention_floor', 'pgmq_bus.channel, pgmq_bus.channel_state, bigint', 'nobody'),
        ('pgmq_bus', 'trim', 'integer, boolean', 'nobody')
),
wanted as (
    select s.schema, s.name, s.arguments, case when s.callers = 'clients' then 'pgmq_bus_client' end as caller
    from shipped as s
    union all
    select 'pgmq_bus_channel', f.name || '_' || replace(c.queue, 'bus_', ''), f.arguments, c.role
    from pgmq_bus.channel as c
    cross join (values ('publish', 'text, text[]'), ('read', 'text, bigint, bigint, integer, bigint')) as f (name, arguments)
),
found as (
    select
        p.oid, p.prosecdef, p.prosrc, p.proowner, n.nspname, p.proname, oidvectortypes(p.proargtypes) as arguments, l.lanname,
        coalesce(p.proconfig, '{}') as settings, p.prosupport, p.probin,
        array(
            select a.grantee::regrole || case when a.is_grantable then ' with grant option' else '' end
            from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
            where a.grantee <> p.proowner
            order by 1
        ) as callers
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    join pg_language as l on l.oid = p.prolang
    where n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
        or p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
        or p.proowner = 'pgmq_bus_owner'::regrole
),
matched as (
    select f.*, w.caller, w.name is not null as is_ours
    from found as f
    left join wanted as w on w.schema = f.nspname and w.name = f.proname and w.arguments = f.arguments
)
select format('%s is none of the functions of the bus', m.oid::regprocedure) from matched as m where not m.is_ours
union all
select format('%I.%I(%s) is missing', w.schema, w.name, w.arguments)
from wanted as w
where not exists (
    select from found as f where w.schema = f.nspname and w.name = f.proname and w.arguments = f.arguments
)
union all
select format('%s belongs to %s', m.oid::regprocedure, m.proowner::regrole)
from matched as m
where m.proowner <> 'pgmq_bus_owner'::regrole
union all
select format('%s has no pinned search_path', m.oid::regprocedure)
from matched as m
where 'search_path=pg_catalog, pg_temp' <> all (m.settings)
union all
select format('%s is %sSECURITY DEFINER', m.oid::regprocedure, case when m.prosecdef then '' else 'not ' end)
from matched as m
where m.is_ours and m.prosecdef <> (m.caller is not null)
union all
-- "-" is what regrole calls PUBLIC.
select format('%s may be executed by %s', m.oid::regprocedure, replace(array_to_string(m.callers, ', '), '-', 'PUBLIC'))
from matched as m
where m.callers <> case when m.caller is null then '{}' else array[m.caller] end::text[]
union all
select format('%s is written in %s', m.oid::regprocedure, m.lanname)
from matched as m
where m.lanname not in ('sql', 'plpgsql') or m.probin is not null or m.prosupport <> 0
union all
select format('%s holds a backslash', m.oid::regprocedure) from matched as m where strpos(m.prosrc, chr(92)) > 0
