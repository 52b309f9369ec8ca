-- Deletes what every live peer has acknowledged and what the channel's retention lets nobody keep. Called by readers, at
-- most twice a second per channel unless p_now, so trimming needs nobody else; a peer that was not seen for the channel's
-- peer timeout no longer holds the log back. Unless nobody was seen for so long: then it was the server that was away, or its
-- clock was set, and whoever was there before has as long again to come back.
create or replace function pgmq_bus.trim(p_channel_id integer, p_now boolean default false) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- Bounds the time one reader spends for all; the rest is left to the next.
    batch constant bigint := 10000;
    state pgmq_bus.channel_state;
    target pgmq_bus.channel;
    present timestamptz;
    counted boolean;
    measured_before bigint;
    floor bigint;
    gone record;
    more boolean := false;
begin
    select * into state from pgmq_bus.channel_state as s
    where s.channel_id = p_channel_id
        and (
            p_now or s.trim_after < clock_timestamp()
            -- A clock that was set back must not put off trimming until it has caught up.
            or (isfinite(s.trim_after) and s.trim_after > clock_timestamp() + interval '1 second')
        )
    for no key update skip locked;
    if not found then
        return;
    end if;
    select * into target from pgmq_bus.channel as c where c.id = p_channel_id;
    -- Each peer that is there calls three times within its timeout, and trims.
    if isfinite(state.trim_after) and state.trim_after < clock_timestamp() - target.peer_timeout / 2 then
        -- Those whom an earlier silence is still held in favour of had no time to come back in between.
        state.silence := tstzrange(
            case
                when upper(state.silence) > state.trim_after - target.peer_timeout then lower(state.silence)
                else state.trim_after
            end,
            clock_timestamp()
        );
    end if;
    present := clock_timestamp() - target.peer_timeout;
    if upper(state.silence) > present then
        present := least(present, lower(state.silence) - target.peer_timeout);
    end if;
    -- A peer that is joining now cannot be older than this floor: it takes its position under the publish lock.
    select min(p.acknowledged) into floor
    from pgmq_bus.peer as p
    where p.channel_id = p_channel_id and p.last_seen > present;

    counted := target.max_messages is not null or target.max_bytes is not null;
    if counted then
        measured_before := state.measured_messages;
        state := pgmq_bus.measure(target, state, batch);
        more := state.measured_messages >= measured_before + batch;
    else
        -- Without a limit nothing is measured; one that is set later begins with what is there then.
        state.measured_to := 0;
        state.measured_messages := 0;
        state.measured_bytes := 0;
    end if;
    if counted or target.max_age is not null then
        floor := greatest(floor, pgmq_bus.retention_floor(target, state, batch));
    end if;
    if floor > state.trimmed then
        more := more or floor >= state.trimmed + batch;
        floor := least(floor, state.trimmed + batch);
        -- Ids that were never given need no scan: go over them at once.
        select coalesce(max(upper(never)) - 1, floor) into floor
        from unnest(target.never_given) as never
        where never @> floor;
        -- The lower bound keeps the scan off index entries of rows that were deleted and are not vacuumed yet.
        if counted then
            execute format(
                'with gone as (delete from pgmq.%I where msg_id > $1 and msg_id <= $2 returning msg_id, message)
                 select count(*) as messages, coalesce(sum(pg_column_size(message)), 0) as bytes from gone where msg_id <= $3',
                'q_' || target.queue
            ) into gone using state.trimmed, floor, state.measured_to;
            state.measured_messages := state.measured_messages - gone.messages;
            state.measured_bytes := state.measured_bytes - gone.bytes;
        else
            execute format('delete from pgmq.%I where msg_id > $1 and msg_id <= $2', 'q_' || target.queue)
                using state.trimmed, floor;
        end if;
        state.trimmed := floor;
    end if;
    update pgmq_bus.channel_state as s
    set trimmed = state.trimmed,
        measured_to = state.measured_to,
        measured_messages = state.measured_messages,
        measured_bytes = state.measured_bytes,
        silence = state.silence,
        trim_after = clock_timestamp() + case when more then interval '0' else interval '0.5 seconds' end
    where s.channel_id = p_channel_id;

    -- Long after the timeout, so that a process that was only paused still finds its place and is told what it lost. One that
    -- comes back at this moment is left alone.
    with dropped as (
        delete from pgmq_bus.peer as p
        where p.queue in (
            select old.queue from pgmq_bus.peer as old
            where old.channel_id = p_channel_id
                and old.last_seen < present - case when old.name is null then interval '1 day' else interval '30 days' end
            for update skip locked
        )
        returning p.lost, p.redelivered
    ),
    totals as (
        select sum(dropped.lost) as lost, sum(dropped.redelivered) as redelivered from dropped having count(*) > 0
    )
    update pgmq_bus.channel_state as s
    set dropped_lost = s.dropped_lost + totals.lost, dropped_redelivered = s.dropped_redelivered + totals.redelivered
    from totals
    where s.channel_id = p_channel_id;
end
$$;
