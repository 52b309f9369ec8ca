-- The id of the newest message that a channel's log ever held, as far as is known: 0 for a log that was always empty.
create or replace function pgmq_bus.head(p_channel_id integer) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    id bigint;
begin
    execute format(
        'select greatest(s.trimmed, (select max(msg_id) from pgmq.%I)) from pgmq_bus.channel_state as s where s.channel_id = $1',
        'q_' || (select c.queue from pgmq_bus.channel as c where c.id = p_channel_id)
    ) into id using p_channel_id;
    return id;
end
$$;
