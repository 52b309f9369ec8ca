-- Tables, views and sequences of the registry and of the channels' logs: owner, privileges, what hangs on a log; and rows that each
-- channel has. Columns: see drift_functions.sql. $1: one channel's id, or null for everything. $2: the names of the registry's relations.
with channels as (
    select c.id, c.name, c.queue, c.durability = 'Unlogged' as unlogged
    from pgmq_bus.channel as c
    where $1::integer is null or c.id = $1
),
logs as (
    select c.name as channel, t.name, t.sort
    from channels as c
    cross join lateral (
        values ('q_' || c.queue, 'log'), ('a_' || c.queue, 'archive'), ('q_' || c.queue || '_msg_id_seq', 'sequence')
    ) as t (name, sort)
),
relations as (
    select
        r.oid, l.channel, l.sort, r.relkind, r.relowner, r.relacl, r.relrowsecurity or r.relforcerowsecurity as secured, r.oid::regclass as name,
        case when r.relkind = 'S' then 'sequence' else 'table' end as kind
    from logs as l
    join pg_class as r on r.relname = l.name and r.relnamespace = (select n.oid from pg_namespace as n where n.nspname = 'pgmq')
    union all
    select r.oid, null, 'registry', r.relkind, r.relowner, r.relacl, false, r.oid::regclass, case when r.relkind = 'S' then 'sequence' else 'table' end
    from pg_class as r
    where $1::integer is null and r.relname = any ($2::text[])
        and r.relnamespace = (select n.oid from pg_namespace as n where n.nspname = 'pgmq_bus')
)
select l.channel, 'table pgmq.' || l.name as object, 'is missing' as problem, case l.sort when 'log' then 'log' else 'queue' end as repair,
    null as statement
from logs as l
where l.sort <> 'sequence' and not exists (select from relations as r where r.channel = l.channel and r.sort = l.sort)
union all
select
    r.channel, format('%s %s', r.kind, r.name), format('belongs to %s', o.rolname), 'statement',
    format('alter %s %s owner to pgmq_bus_owner', case when r.relkind = 'v' then 'view' else r.kind end, r.name)
from relations as r
join pg_roles as o on o.oid = r.relowner
-- A sequence of a column follows its table.
where o.rolname <> 'pgmq_bus_owner' and r.relkind <> 'S'
union all
select
    r.channel, format('%s %s', r.kind, r.name), format('%s granted to %s', string_agg(g.privilege_type, ', ' order by g.privilege_type), coalesce(w.rolname, 'PUBLIC')),
    'statement', format('revoke all on %s %s from %s cascade', r.kind, r.name, coalesce(quote_ident(w.rolname), 'public'))
from relations as r
cross join lateral (
    select g.grantee, g.privilege_type from aclexplode(r.relacl) as g
    union all
    select g.grantee, format('%s (%s)', g.privilege_type, a.attname)
    from pg_attribute as a
    cross join lateral aclexplode(a.attacl) as g
    where a.attrelid = r.oid and a.attacl is not null
) as g
left join pg_roles as w on w.oid = g.grantee
where g.grantee <> r.relowner
group by r.channel, r.kind, r.name, w.rolname
union all
select
    r.channel, format('%s %s', r.kind, r.name), format('%s revoked from its owner', p.privilege), 'statement',
    format('grant all on %s %s to pgmq_bus_owner', r.kind, r.name)
from relations as r
cross join lateral (
    select string_agg(d.privilege_type, ', ' order by d.privilege_type) as privilege
    from aclexplode(acldefault(case r.relkind when 'S' then 's'::"char" else 'r'::"char" end, r.relowner)) as d
    where r.relacl is not null and not exists (
        select from aclexplode(r.relacl) as g where g.grantee = r.relowner and g.privilege_type = d.privilege_type
    )
) as p
where p.privilege is not null
union all
select
    r.channel, format('table %s', r.name), format('%s %s was added', a.kind, a.name), 'statement', format('drop %s %I on %s', a.kind, a.name, r.name)
from relations as r
cross join lateral (
    select 'trigger', t.tgname from pg_trigger as t where t.tgrelid = r.oid and not t.tgisinternal
    union all
    select 'rule', u.rulename from pg_rewrite as u where u.ev_class = r.oid and u.rulename <> '_RETURN'
    union all
    select 'policy', p.polname from pg_policy as p where p.polrelid = r.oid
) as a (kind, name)
where r.channel is not null
union all
select
    r.channel, format('table %s', r.name), 'row level security was switched on', 'statement',
    format('alter table %s disable row level security, no force row level security', r.name)
from relations as r
where r.channel is not null and r.secured
union all
select r.channel, format('table %s', r.name), 'its primary key is missing', 'statement', format('alter table %s add primary key (msg_id)', r.name)
from relations as r
where r.sort in ('log', 'archive') and not exists (select from pg_index as i where i.indrelid = r.oid and i.indisprimary and i.indisvalid)
union all
select r.channel, format('table %s', r.name), 'its index is missing', 'queue', null
from relations as r
where r.sort in ('log', 'archive') and not exists (select from pg_index as i where i.indrelid = r.oid and not i.indisprimary and i.indisvalid)
union all
select c.name, 'table pgmq.meta', format('the row of queue %s is missing', c.queue), 'queue', null
from channels as c
where not exists (select from pgmq.meta as m where m.queue_name = c.queue)
union all
select
    c.name, 'table pgmq_bus.' || t.name, 'the row of the channel is missing', 'statement',
    format('insert into pgmq_bus.%I (channel_id) values (%s) on conflict do nothing', t.name, c.id)
from channels as c
cross join lateral (
    values
        ('channel_gate', exists (select from pgmq_bus.channel_gate as g where g.channel_id = c.id)),
        ('channel_state', exists (select from pgmq_bus.channel_state as s where s.channel_id = c.id))
) as t (name, present)
where not t.present
