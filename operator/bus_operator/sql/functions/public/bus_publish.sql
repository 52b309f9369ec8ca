create or replace function public.bus_publish(p_channel text, p_my_queue text, p_message jsonb) returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return pgmq_bus.append(p_channel, p_my_queue, array[p_message]);
end
$$;
