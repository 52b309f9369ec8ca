-- Notes that a peer is alive; writes only when the last note is getting old.
create or replace function pgmq_bus.heartbeat(member pgmq_bus.membership) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if member.last_seen < clock_timestamp() - member.peer_timeout / 10 then
        perform pgmq_bus.commit_lazily();
        update pgmq_bus.peer set last_seen = clock_timestamp(), login = session_user where queue = member.queue;
    end if;
end
$$;
