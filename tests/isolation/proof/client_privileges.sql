-- Beyond PUBLIC, a client has CONNECT on the database, USAGE of two schemas, and EXECUTE of the functions of the protocol and of its
-- own channel's two. Nobody granted anything else to a role of clients, on anything of this database or of the server.
select format('%s: a privilege granted to %s', pg_describe_object(d.classid, d.objid, d.objsubid), d.refobjid::regrole)
from pg_shdepend as d
join pg_database as b on b.datname = current_database()
left join pg_proc as p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
left join pg_namespace as n on d.classid = 'pg_namespace'::regclass and n.oid = d.objid
left join pgmq_bus.channel as c on c.role = d.refobjid::regrole::text
where d.refclassid = 'pg_authid'::regclass and d.deptype = 'a' and d.dbid in (0, b.oid)
    and d.refobjid::regrole::text ~ '^(pgmq_bus_client$|bus_channel_|bus_login_)'
    and case
        when d.classid = 'pg_database'::regclass and d.refobjid = 'pgmq_bus_client'::regrole then false
        -- Who is a member of what: see roles.sql.
        when d.classid = 'pg_auth_members'::regclass then false
        when n.oid is not null and d.refobjid = 'pgmq_bus_client'::regrole then n.nspname not in ('pgmq_bus_v1', 'pgmq_bus_channel')
        when p.oid is not null and d.refobjid = 'pgmq_bus_client'::regrole then
            not (
                p.pronamespace = 'pgmq_bus_v1'::regnamespace
                or p.pronamespace = 'public'::regnamespace
                and p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
            )
        when p.oid is not null and c.id is not null then
            p.pronamespace <> 'pgmq_bus_channel'::regnamespace
            or p.proname not in ('publish_' || replace(c.queue, 'bus_', ''), 'read_' || replace(c.queue, 'bus_', ''))
        else true
    end
union all
select format('database %s: %s granted to %s', b.datname, a.privilege_type, a.grantee::regrole)
from pg_database as b
cross join lateral aclexplode(b.datacl) as a
where a.grantee::regrole::text ~ '^(pgmq_bus_client$|bus_channel_|bus_login_)'
    and not (a.grantee = 'pgmq_bus_client'::regrole and a.privilege_type = 'CONNECT' and not a.is_grantable)
union all
-- And what comes of it: each login, tried on every function, relation and schema with the server's own answer.
select format('%s may execute %s', l.role, p.oid::regprocedure)
from pgmq_bus.login as l
join pgmq_bus.channel as c on c.id = l.channel_id
cross join pg_proc as p
join pg_namespace as n on n.oid = p.pronamespace
where p.oid >= 16384
    and has_function_privilege(l.role, p.oid, 'EXECUTE') and has_schema_privilege(l.role, n.oid, 'USAGE')
    and not (
        n.nspname = 'pgmq_bus_v1'
        or n.nspname = 'public' and p.proname in ('bus_join', 'bus_publish', 'bus_subscribe', 'bus_archive', 'bus_leave')
        or n.nspname = 'pgmq_bus_channel'
        and p.proname in ('publish_' || replace(c.queue, 'bus_', ''), 'read_' || replace(c.queue, 'bus_', ''))
    )
union all
select format('%s may read or write %s', l.role, r.oid::regclass)
from pgmq_bus.login as l
cross join pg_class as r
where r.oid >= 16384
    and case
        when r.relkind = 'S' then has_sequence_privilege(l.role, r.oid, 'USAGE, SELECT, UPDATE')
        when r.relkind in ('r', 'v', 'm', 'p', 'f') then
            has_table_privilege(l.role, r.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
            or has_any_column_privilege(l.role, r.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
        else false
    end
union all
select format('%s may use or create in the schema %s', l.role, n.nspname)
from pgmq_bus.login as l
cross join pg_namespace as n
where has_schema_privilege(l.role, n.oid, 'CREATE')
    or has_schema_privilege(l.role, n.oid, 'USAGE')
    and n.nspname not in ('pg_catalog', 'information_schema', 'public', 'pgmq_bus_v1', 'pgmq_bus_channel')
union all
select format('%s may create in the database %s', l.role, b.datname)
from pgmq_bus.login as l
cross join pg_database as b
where has_database_privilege(l.role, b.oid, 'CREATE')
union all
select format('%s can act as %s', l.role, r.rolname)
from pgmq_bus.login as l
join pgmq_bus.channel as c on c.id = l.channel_id
cross join pg_roles as r
where pg_has_role(l.role, r.oid, 'MEMBER') and r.rolname not in (l.role, c.role, 'pgmq_bus_client')
