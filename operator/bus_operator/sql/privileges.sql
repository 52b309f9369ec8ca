-- Who may call what. Runs as pgmq_bus_owner after the functions were created; the roles exist.
revoke all on schema pgmq_bus, pgmq_bus_v1, pgmq_bus_channel from public, pgmq_bus_client;
-- Not on ALL TABLES: what somebody else has put there is not ours to revoke anything on, and reported.
do $$
declare
    relation regclass;
begin
    for relation in
        select c.oid
        from pg_catalog.pg_class as c
        join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        join pg_catalog.pg_roles as r on r.oid = c.relowner
        where n.nspname = 'pgmq_bus' and c.relkind in ('r', 'v', 'S') and r.rolname = 'pgmq_bus_owner'
    loop
        execute pg_catalog.format('revoke all on table %s from public, pgmq_bus_client', relation);
    end loop;
end
$$;
-- What is in pgmq_bus_channel is granted to each channel's own role, when its functions are made.
grant usage on schema pgmq_bus_v1, pgmq_bus_channel to pgmq_bus_client;

alter default privileges for role pgmq_bus_owner revoke execute on functions from public;
revoke all on all functions in schema pgmq_bus, pgmq_bus_v1 from public;
revoke all on all functions in schema pgmq_bus from pgmq_bus_client;
grant execute on all functions in schema pgmq_bus_v1 to pgmq_bus_client;

revoke all on function
    public.bus_join(text),
    public.bus_publish(text, text, jsonb),
    public.bus_subscribe(text, text, integer, integer, integer),
    public.bus_archive(text, text, bigint),
    public.bus_leave(text, text)
from public;
grant execute on function
    public.bus_join(text),
    public.bus_publish(text, text, jsonb),
    public.bus_subscribe(text, text, integer, integer, integer),
    public.bus_archive(text, text, bigint),
    public.bus_leave(text, text)
to pgmq_bus_client;
