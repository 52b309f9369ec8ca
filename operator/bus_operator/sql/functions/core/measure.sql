-- Goes on measuring the log, by at most p_batch messages: up to which id, and how many bytes are in it after what is trimmed.
create or replace function pgmq_bus.measure(
    p_target pgmq_bus.channel, p_state pgmq_bus.channel_state, p_batch bigint, out measured_to bigint, out measured_bytes bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    reached bigint;
    added bigint;
begin
    measured_to := greatest(p_state.measured_to, p_state.trimmed);
    execute format(
        'select max(l.msg_id), coalesce(sum(pg_column_size(l.message)), 0)
         from (select msg_id, message from pgmq.%I where msg_id > $1 order by msg_id limit $2) as l',
        'q_' || p_target.queue
    ) into reached, added using measured_to, p_batch;
    measured_to := greatest(measured_to, reached);
    measured_bytes := p_state.measured_bytes + added;
end
$$;
