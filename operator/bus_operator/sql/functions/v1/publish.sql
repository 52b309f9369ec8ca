create or replace function pgmq_bus_v1.publish(p_channel text, p_queue text, p_messages jsonb[]) returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq_bus.require_range('the number of messages', cardinality(p_messages), 1, 10000);
    perform pgmq_bus.require_range('the number of dimensions of p_messages', array_ndims(p_messages), 1, 1);
    return pgmq_bus.append(p_channel, p_queue, p_messages);
end
$$;
