create or replace function pgmq_bus_v1.join_channel(p_channel text, p_options jsonb) returns jsonb
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select pgmq_bus.enter(
        p_channel, p_options ->> 'peer', p_options ->> 'application', p_options ->> 'host', p_options ->> 'runtime'
    );
$$;
