create or replace function pgmq_bus_v1.leave(p_channel text, p_queue text) returns boolean
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select pgmq_bus.exit(p_channel, p_queue);
$$;
