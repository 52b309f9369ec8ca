-- The logins of a channel, or of all where $1 is null.
select
    l.channel_id, l.role::text as role, l.generation, l.verifier,
    r.oid is not null as role_exists,
    coalesce(r.rolcanlogin and not (r.rolsuper or r.rolcreatedb or r.rolcreaterole or r.rolreplication or r.rolbypassrls)
            and coalesce(r.rolvaliduntil, 'infinity') = 'infinity', false)
        as attributes_right,
    r.rolconnlimit as connection_limit,
    coalesce(pg_has_role(r.oid, to_regrole(c.role::text)::oid, 'USAGE'), false) as is_member,
    l.published_at, l.request, l.unused_since, l.warned_at
from pgmq_bus.login as l
join pgmq_bus.channel as c on c.id = l.channel_id
left join pg_roles as r on r.rolname = l.role
where $1::integer is null or l.channel_id = $1
order by l.generation
