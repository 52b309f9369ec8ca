-- p_options: peer, application, host, runtime, address and since are texts, listens is a boolean; all are optional. since is what
-- an earlier answer to the same process said: it claims the place that it had, and is refused where somebody joined later.
create or replace function pgmq_bus_v1.join_channel(p_channel text, p_options jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_options is not null and jsonb_typeof(p_options) <> 'object' then
        raise invalid_parameter_value using message = 'bus: p_options must be an object';
    end if;
    -- An expression, where a query would cost a session that is new more.
    if jsonb_path_exists(
        p_options,
        '$.keyvalue() ? (
            (@.key == "peer" || @.key == "application" || @.key == "host" || @.key == "runtime" || @.key == "address")
                && @.value.type() != "string" && @.value.type() != "null"
            || @.key == "since" && @.value.type() != "null"
                && (@.value.type() != "string" || !(@.value like_regex "^[0-9]{1,16}$"))
            || @.key == "listens" && @.value.type() != "boolean" && @.value.type() != "null"
        )'
    ) then
        raise invalid_parameter_value using
            message = 'bus: peer, application, host, runtime and address must be texts, since digits, listens a boolean';
    end if;
    perform pgmq_bus.require_address(p_options ->> 'address');
    if starts_with(p_options ->> 'runtime', 'bus_runtime/') and not p_options ? 'address' then
        -- The runtime of schema version 2 knows of no doorbells: it listens, and has to be listened for.
        return pgmq_bus.enter(p_channel, p_options || '{"listens": true}', true);
    end if;
    return pgmq_bus.enter(p_channel, p_options, false);
end
$$;
