-- The first publish or join after a crash or a failover: the end of the log may be lost, but peers that were rung may have seen
-- messages of it. Ids go on so much higher that none is ever given twice: a peer would take the second for the first. A logged
-- log can have lost what was published within three times wal_writer_delay (0.6 seconds unless somebody set it higher); of one
-- that is gone (an unlogged one, or one that was made anew), only the registry's cursors know how far it went.
-- The roster's version goes on higher for the same reason; it is returned. Called under the publish lock. What a rollback
-- takes back is found again in the same way, but for the sequence, which nothing sets back.
create or replace function pgmq_bus.recover(p_channel_id integer) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    log text;
    gone boolean;
    newest bigint;
    given bigint;
    onward bigint;
    version bigint;
begin
    select 'q_' || c.queue, l.relpersistence = 'u' or pg_sequence_last_value(s.oid) is null into log, gone
    from pgmq_bus.channel as c
    join pg_class as l on l.oid = to_regclass(format('pgmq.%I', 'q_' || c.queue))
    join pg_class as s on s.oid = to_regclass(format('pgmq.%I', 'q_' || c.queue || '_msg_id_seq'))
    where c.id = p_channel_id;
    execute format('select max(l.msg_id) from pgmq.%I as l', log) into newest;
    select greatest(s.trimmed, newest, max(p.acknowledged), max(p.delivered), max(p.position)) into given
    from pgmq_bus.channel_state as s
    left join pgmq_bus.peer as p on p.channel_id = s.channel_id
    where s.channel_id = p_channel_id
    group by s.trimmed;
    -- Also beyond an earlier crash's gap: what was published since may be lost with every trace.
    select greatest(given, pgmq_bus.head(c.id), upper(c.never_given) - 1) + case when gone then 1000000000 else 1000000 end
    into onward
    from pgmq_bus.channel as c where c.id = p_channel_id;
    perform setval(to_regclass(format('pgmq.%I', log || '_msg_id_seq')), onward);
    if gone and newest is null then
        -- Peers are told that what they had not read is lost.
        update pgmq_bus.channel_state
        set trimmed = given, measured_to = given, measured_messages = 0, measured_bytes = 0
        where channel_id = p_channel_id;
    end if;
    insert into pgmq_bus.channel_alive values (p_channel_id) on conflict do nothing;
    update pgmq_bus.channel
    set roster = roster + 1000, never_given = never_given + int8multirange(int8range(given, onward, '(]'))
    where id = p_channel_id
    returning roster into version;
    -- On disk before anybody sees an id or a version from beyond the gap: or the next crash would give them again.
    perform set_config('synchronous_commit', 'on', true);
    return version;
end
$$;
