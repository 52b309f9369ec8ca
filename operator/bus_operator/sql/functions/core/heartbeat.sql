-- Notes that a peer is alive and extends the visibility of what it has in hand: redelivery is for dead readers, not slow
-- ones. p_visibility_seconds null extends nothing. Writes only when there is something to extend or the last note is getting old.
create or replace function pgmq_bus.heartbeat(member pgmq_bus.membership, p_visibility_seconds integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update pgmq_bus.peer
    set visible_at = greatest(visible_at, clock_timestamp() + make_interval(secs => p_visibility_seconds)),
        last_seen = clock_timestamp(),
        login = session_user
    where queue = member.queue
        and (
            (delivered > acknowledged and visible_at < clock_timestamp() + make_interval(secs => p_visibility_seconds * 0.75))
            or last_seen < clock_timestamp() - member.peer_timeout / 10
        );
end
$$;
