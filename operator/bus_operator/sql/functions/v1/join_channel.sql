-- p_options: peer, application, host, runtime and address are texts, listens is a boolean; all are optional.
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
        where option.key in ('peer', 'application', 'host', 'runtime', 'address')
                and jsonb_typeof(option.value) not in ('string', 'null')
            or option.key = 'listens' and jsonb_typeof(option.value) not in ('boolean', 'null')
    ) then
        raise invalid_parameter_value using
            message = 'bus: peer, application, host, runtime and address must be texts, listens a boolean';
    end if;
    perform pgmq_bus.require_address(p_options ->> 'address');
    return pgmq_bus.enter(p_channel, p_options, false);
end
$$;
