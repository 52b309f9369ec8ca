-- Sessions that keep the log of queue $1 locked, or what belongs to it, although their logins are other channels' and no members of
-- its role $2.
select distinct l.pid, a.usename::text as login
from pg_locks as l
join pg_stat_activity as a on a.pid = l.pid
where l.database = (select d.oid from pg_database as d where d.datname = current_database())
    and l.relation in (
        select unnest(array[r.oid, r.reltoastrelid])
        from pg_class as r
        where r.relnamespace = to_regnamespace('pgmq')
            and r.relname in ('q_' || $1, 'a_' || $1, 'q_' || $1 || '_msg_id_seq')
    )
    and pg_has_role(a.usesysid, 'pgmq_bus_client', 'MEMBER')
    and not coalesce(pg_has_role(a.usesysid, to_regrole($2)::oid, 'MEMBER'), false)
