-- Acknowledges and reads in one round trip; a plain read where there is nothing to acknowledge. Static SQL, see publish.sql.
-- A row with lost = n: up to n messages, up to msg_id, were trimmed before this peer read them. A row with neither message nor
-- lost: a message that this peer published, on a channel that does not deliver those. A row without msg_id: the roster changed.
create or replace function pgmq_bus_channel.{{read}}(
    p_queue text, p_after bigint, p_acknowledge bigint, p_limit integer, p_roster bigint
) returns table (msg_id bigint, message text, lost bigint, roster bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- The first plans are made while the log is small, and kept.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    member record;
    head bigint;
begin
    if p_after is null or p_after < 0 then
        perform pgmq_bus.require_range('p_after', p_after, 0, 9223372036854775807);
    end if;
    if p_limit is null or p_limit not between 0 and 10000 then
        perform pgmq_bus.require_range('p_limit', p_limit, 0, 10000);
    end if;
    select m.peer_id, m.self_delivery, m.has_retention, m.roster, m.acknowledged, m.last_seen, m.peer_timeout into member
    from pgmq_bus.membership as m where m.queue = p_queue and m.channel_id = {{channel_id}};
    if not found then
        perform pgmq_bus.deny(p_queue);
    end if;
    if p_acknowledge > member.acknowledged or member.last_seen < clock_timestamp() - member.peer_timeout / 10 then
        -- Losing an acknowledgement in a crash only means a redelivery: it never waits for the disk.
        perform pgmq_bus.commit_lazily();
        -- Not past what was ever published, so that a wrong number does not make the peer deaf. (A sequence that is selected
        -- from is scanned, and a plan with a scan that is off looks so dear that PostgreSQL 17 and older compile it every time.)
        head := coalesce(pg_sequence_last_value('pgmq.{{sequence}}'), 0);
        update pgmq_bus.peer as p
        -- coalesce: least(null, head) is the head, and a heartbeat acknowledges nothing.
        set acknowledged = greatest(p.acknowledged, least(coalesce(p_acknowledge, 0), head)),
            delivered = greatest(p.delivered, least(p_after, head)),
            position = greatest(p.position, least(p_after, head)),
            last_seen = clock_timestamp(),
            login = session_user
        where p.queue = p_queue;
        if member.last_seen < clock_timestamp() - member.peer_timeout then
            -- It was given up: who looked at the roster meanwhile does not know how to wake it.
            perform pgmq_bus.change_roster({{channel_id}});
        end if;
        perform pgmq_bus.trim({{channel_id}});
    elsif member.has_retention then
        perform pgmq_bus.commit_lazily();
        perform pgmq_bus.trim({{channel_id}});
    end if;
    if p_roster is distinct from member.roster then
        roster := member.roster;
        return next;
        roster := null;
    end if;
    if p_limit = 0 then
        return;
    end if;
    -- One statement, so one snapshot: trimming changes the log and channel_state together.
    return query
        select s.trimmed, null::text, pgmq_bus.note_lost({{channel_id}}, p_queue, p_after, s.trimmed), null::bigint
        from pgmq_bus.channel_state as s
        where s.channel_id = {{channel_id}} and s.trimmed > p_after
        union all
        (
            select
                l.msg_id,
                case
                    when member.self_delivery or l.headers is null or not l.headers @> jsonb_build_object('peer', member.peer_id)
                        then l.message::text
                end,
                null::bigint,
                null::bigint
            from pgmq.{{log}} as l
            where l.msg_id > p_after
            order by l.msg_id
            limit p_limit
        );
end
$$;
