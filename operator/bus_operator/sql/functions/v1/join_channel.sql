create or replace function pgmq_bus_v1.join_channel(p_channel text, p_options jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_options is not null and jsonb_typeof(p_options) <> 'object' then
        raise invalid_parameter_value using message = 'bus: p_options must be an object';
    end if;
    if exists (
        select from jsonb_each(p_options) as option
        where option.key in ('peer', 'application', 'host', 'runtime') and jsonb_typeof(option.value) not in ('string', 'null')
    ) then
        raise invalid_parameter_value using message = 'bus: peer, application, host and runtime must be texts';
    end if;
    return pgmq_bus.enter(
        p_channel, p_options ->> 'peer', p_options ->> 'application', p_options ->> 'host', p_options ->> 'runtime'
    );
end
$$;
