-- The owner role owns nothing but the bus, and the roles of clients own nothing at all.
select format('%s owns %s', d.refobjid::regrole, pg_describe_object(d.classid, d.objid, d.objsubid))
from pg_shdepend as d
join pg_database as b on b.datname = current_database()
left join pg_class as c on d.classid = 'pg_class'::regclass and c.oid = d.objid
left join pg_proc as p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
left join pg_type as t on d.classid = 'pg_type'::regclass and t.oid = d.objid
where d.refclassid = 'pg_authid'::regclass and d.deptype = 'o' and d.dbid in (0, b.oid)
    and (
        d.refobjid::regrole::text ~ '^(pgmq_bus_client$|bus_channel_|bus_login_)'
        or d.refobjid = 'pgmq_bus_owner'::regrole
        and d.classid not in ('pg_namespace'::regclass, 'pg_default_acl'::regclass)
        and coalesce(c.relnamespace, p.pronamespace, t.typnamespace)::regnamespace::text
            not in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel', 'pgmq', 'public')
    )
union all
select format('pgmq_bus_owner owns the schema %s', n.nspname)
from pg_namespace as n
where n.nspowner = 'pgmq_bus_owner'::regrole and n.nspname not in ('pgmq_bus', 'pgmq_bus_v1', 'pgmq_bus_channel')
union all
select format('pgmq_bus_owner owns the database %s', b.datname) from pg_database as b where b.datdba = 'pgmq_bus_owner'::regrole
