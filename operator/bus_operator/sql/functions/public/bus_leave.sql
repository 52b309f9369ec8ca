create or replace function public.bus_leave(p_my_queue text, p_channel text) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select pgmq_bus.exit(p_channel, p_my_queue);
$$;
