-- Up to which id the channel's retention lets messages go, whoever has not read them; null where it lets none. Looks at most
-- p_batch messages far, and no further than the first that may stay.
create or replace function pgmq_bus.retention_floor(p_target pgmq_bus.channel, p_state pgmq_bus.channel_state, p_batch bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    too_old constant timestamptz := clock_timestamp() - p_target.max_age;
    too_many bigint := p_state.measured_messages - p_target.max_messages;
    too_large bigint := p_state.measured_bytes - p_target.max_bytes;
    floor bigint;
    message record;
begin
    for message in execute format(
        'select msg_id, enqueued_at, pg_column_size(message) as bytes from pgmq.%I where msg_id > $1 order by msg_id limit $2',
        'q_' || p_target.queue
    ) using p_state.trimmed, p_batch
    loop
        -- A bound that is not set is null, and asks for nothing.
        exit when (message.enqueued_at < too_old or too_many > 0 or too_large > 0) is not true;
        floor := message.msg_id;
        too_many := too_many - 1;
        too_large := too_large - message.bytes;
    end loop;
    return floor;
end
$$;
