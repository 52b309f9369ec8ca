-- The first publish after a crash or a failover: the end of the log may be lost, but peers that were rung may have seen
-- messages of it. Ids go on a million higher, so that none is ever given twice: a peer would take the second for the first.
-- (What can be lost is what was published within three times wal_writer_delay, 0.6 seconds unless somebody set it higher.)
-- Called under the publish lock.
create or replace function pgmq_bus.recover(p_channel_id integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    ended bigint;
begin
    -- The sequence of an unlogged log begins again at 1: then only the cursors know where it was.
    select greatest(pgmq_bus.head(p_channel_id), max(p.acknowledged), max(p.delivered), max(p.position), 0) into ended
    from pgmq_bus.peer as p where p.channel_id = p_channel_id;
    perform setval(to_regclass(format('pgmq.%I', 'q_' || c.queue || '_msg_id_seq')), ended + 1000000)
    from pgmq_bus.channel as c where c.id = p_channel_id;
    update pgmq_bus.channel_state set jumped_from = ended, jumped_to = ended + 1000000 where channel_id = p_channel_id;
    insert into pgmq_bus.channel_alive values (p_channel_id);
end
$$;
