-- Goes on measuring the log, by at most p_batch messages: how many messages and bytes there are after what is trimmed and up
-- to measured_to.
create or replace function pgmq_bus.measure(p_target pgmq_bus.channel, p_state pgmq_bus.channel_state, p_batch bigint)
returns pgmq_bus.channel_state
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    measured pgmq_bus.channel_state := p_state;
    reached bigint;
    messages bigint;
    bytes bigint;
begin
    measured.measured_to := greatest(p_state.measured_to, p_state.trimmed);
    execute format(
        'select max(l.msg_id), count(*), coalesce(sum(pg_column_size(l.message)), 0)
         from (select msg_id, message from pgmq.%I where msg_id > $1 order by msg_id limit $2) as l',
        'q_' || p_target.queue
    ) into reached, messages, bytes using measured.measured_to, p_batch;
    measured.measured_to := greatest(measured.measured_to, reached);
    measured.measured_messages := p_state.measured_messages + messages;
    measured.measured_bytes := p_state.measured_bytes + bytes;
    return measured;
end
$$;
