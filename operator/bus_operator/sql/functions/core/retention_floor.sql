-- Up to which id the channel's retention lets messages go, whoever has not read them; looks at most p_batch messages far.
create or replace function pgmq_bus.retention_floor(p_target pgmq_bus.channel, p_state pgmq_bus.channel_state, p_batch bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    too_old bigint;
    too_many bigint;
    too_large bigint;
begin
    if p_target.max_age is not null then
        execute format(
            'select max(l.msg_id)
             from (select msg_id, enqueued_at from pgmq.%I where msg_id > $1 order by msg_id limit $2) as l
             where l.enqueued_at < clock_timestamp() - $3',
            'q_' || p_target.queue
        ) into too_old using p_state.trimmed, p_batch, p_target.max_age;
    end if;
    if p_target.max_messages is not null then
        too_many := pgmq_bus.head(p_target.id) - p_target.max_messages;
        if too_many < p_state.jumped_to then
            too_many := too_many - (p_state.jumped_to - p_state.jumped_from);
        end if;
    end if;
    if p_state.measured_bytes > p_target.max_bytes then
        execute format(
            'select max(l.msg_id)
             from (
                 select msg_id, sum(pg_column_size(message)) over (order by msg_id) - pg_column_size(message) as before
                 from (select msg_id, message from pgmq.%I where msg_id > $1 order by msg_id limit $2) as first
             ) as l
             where l.before < $3',
            'q_' || p_target.queue
        ) into too_large using p_state.trimmed, p_batch, p_state.measured_bytes - p_target.max_bytes;
    end if;
    return greatest(too_old, too_many, too_large);
end
$$;
