create or replace function public.bus_publish(p_channel text, p_my_queue text, p_message jsonb) returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    if p_message is null then
        raise invalid_parameter_value using message = 'bus: a message must not be null';
    end if;
    return pgmq_bus.append(p_channel, p_my_queue, p_message);
end
$$;
