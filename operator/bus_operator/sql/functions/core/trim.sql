-- Deletes what every live peer has acknowledged. Called by readers, at most once a second per channel unless p_now, so
-- trimming needs nobody else; a peer that was not seen for the channel's peer timeout no longer holds the log back.
create or replace function pgmq_bus.trim(p_channel_id integer, p_now boolean default false) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- Bounds the time one reader spends for all; the rest is left to the next.
    batch constant bigint := 10000;
    log text;
    timeout interval;
    trimmed_to bigint;
    floor bigint;
    more boolean := false;
begin
    select s.trimmed into trimmed_to
    from pgmq_bus.channel_state as s
    where s.channel_id = p_channel_id and (p_now or s.trim_after < clock_timestamp())
    for no key update skip locked;
    if not found then
        return;
    end if;
    select c.queue, c.peer_timeout into log, timeout from pgmq_bus.channel as c where c.id = p_channel_id;
    -- A peer that is joining now cannot be older than this floor: it takes its position under the publish lock.
    select min(p.acknowledged) into floor
    from pgmq_bus.peer as p
    where p.channel_id = p_channel_id and p.last_seen > clock_timestamp() - timeout;

    if floor > trimmed_to then
        more := floor > trimmed_to + batch;
        floor := least(floor, trimmed_to + batch);
        -- The lower bound keeps the scan off index entries of rows that were deleted and are not vacuumed yet.
        execute format('delete from pgmq.%I where msg_id > $1 and msg_id <= $2', 'q_' || log) using trimmed_to, floor;
        trimmed_to := floor;
    end if;
    update pgmq_bus.channel_state
    set trimmed = trimmed_to,
        trim_after = clock_timestamp() + case when more then interval '0' else interval '1 second' end
    where channel_id = p_channel_id;

    -- Long after the timeout, so that a process that was only paused still finds its place and is told what it lost.
    delete from pgmq_bus.peer as p
    where p.channel_id = p_channel_id
        and p.last_seen < clock_timestamp() - timeout - case when p.name is null then interval '1 day' else interval '30 days' end;
end
$$;
