-- The registry and the logs belong to the owner role, who is the only one with a privilege on them; nothing runs when they are
-- written to or read, and nothing copies them out.
with ours as (
    select c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.relrowsecurity, c.relnamespace, c.relhassubclass
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind <> 'c'
        and (
            n.nspname in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
            or n.nspname = 'pgmq' and (c.relname ~ '^[qa]_bus_' or c.relowner = 'pgmq_bus_owner'::regrole)
        )
)
select format('relation %s is none of the registry', o.oid::regclass)
from ours as o
where o.relnamespace <> 'pgmq'::regnamespace and o.relkind not in ('i')
    and o.oid::regclass::text not in (
        'pgmq_bus.channel', 'pgmq_bus.channel_alive', 'pgmq_bus.channel_gate', 'pgmq_bus.channel_id_seq', 'pgmq_bus.channel_state',
        'pgmq_bus.installation', 'pgmq_bus.login', 'pgmq_bus.membership', 'pgmq_bus.peer', 'pgmq_bus.peer_id_seq'
    )
union all
select format('relation %s is no channel''s log', o.oid::regclass)
from ours as o
where o.relnamespace = 'pgmq'::regnamespace and o.relkind not in ('i')
    and not exists (
        select from pgmq_bus.channel as c
        where o.relname in ('q_' || c.queue, 'a_' || c.queue, 'q_' || c.queue || '_msg_id_seq')
    )
union all
select format('the log of %s is missing', c.queue) from pgmq_bus.channel as c where to_regclass('pgmq.q_' || c.queue) is null
union all
select format('relation %s belongs to %s', o.oid::regclass, o.relowner::regrole)
from ours as o
where o.relowner <> 'pgmq_bus_owner'::regrole
union all
select format('relation %s: %s granted to %s', o.oid::regclass, a.privilege_type, replace(a.grantee::regrole::text, '-', 'PUBLIC'))
from ours as o
cross join lateral aclexplode(o.relacl) as a
where a.grantee <> o.relowner
union all
select format('relation %s: a privilege on the column %s', o.oid::regclass, a.attname)
from ours as o
join pg_attribute as a on a.attrelid = o.oid
where a.attacl is not null
union all
select format('relation %s has the trigger %s', o.oid::regclass, t.tgname)
from ours as o
join pg_trigger as t on t.tgrelid = o.oid
where not t.tgisinternal
union all
select format('relation %s has the rule %s', o.oid::regclass, w.rulename)
from ours as o
join pg_rewrite as w on w.ev_class = o.oid
where not (w.rulename = '_RETURN' and o.relkind = 'v')
union all
select format('relation %s has the policy %s', o.oid::regclass, p.polname) from ours as o join pg_policy as p on p.polrelid = o.oid
union all
select format('relation %s has row level security', o.oid::regclass) from ours as o where o.relrowsecurity
union all
select format('relation %s inherits from %s', i.inhrelid::regclass, i.inhparent::regclass)
from pg_inherits as i
where i.inhrelid in (select o.oid from ours as o) or i.inhparent in (select o.oid from ours as o)
union all
select format('publication %s copies %s', p.pubname, coalesce(r.prrelid::regclass::text, 'everything'))
from pg_publication as p
left join pg_publication_rel as r on r.prpubid = p.oid
where p.puballtables or r.prrelid in (select o.oid from ours as o)
union all
select format('publication %s copies the schema %s', p.pubname, s.pnnspid::regnamespace)
from pg_publication as p
join pg_publication_namespace as s on s.pnpubid = p.oid
where s.pnnspid::regnamespace::text in ('pgmq', 'pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
union all
-- An expression in an index, a default or a check runs as whoever writes.
select format('the index %s has an expression', x.indexrelid::regclass)
from pg_index as x
where x.indrelid in (select o.oid from ours as o) and x.indexprs is not null
