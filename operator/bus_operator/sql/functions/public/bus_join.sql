-- The five functions in public are the wire protocol of pipecat's IsolatedPgmqBackend (pipecat-ai 1.14).
create or replace function public.bus_join(p_channel text) returns text
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select pgmq_bus.enter(p_channel, null, true) ->> 'queue';
$$;
