-- The id of the newest message that a channel's log ever held, as far as is known: 0 for a log that was always empty. Under
-- the publish lock it is exact; else a publish that is under way may be counted already.
create or replace function pgmq_bus.head(p_channel_id integer) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select greatest(s.trimmed, pg_sequence_last_value(to_regclass(format('pgmq.%I', 'q_' || c.queue || '_msg_id_seq'))))
    from pgmq_bus.channel as c
    join pgmq_bus.channel_state as s on s.channel_id = c.id
    where c.id = p_channel_id;
$$;
