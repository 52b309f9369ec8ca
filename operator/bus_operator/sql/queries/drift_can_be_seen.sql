-- Whether something is installed that this administrator may look into: see observe_database.sql.
select exists (
    select from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'pgmq_bus' and c.relname = 'installation' and to_regrole('pgmq_bus_owner')::oid in (n.nspowner, c.relowner)
) and coalesce(pg_has_role(current_user, to_regrole('pgmq_bus_owner')::oid, 'USAGE'), false)
