-- Reads for a long poll whose membership was checked: up to p_limit messages after p_after, in order, marked as delivered.
-- Notes own messages, and p_own says whether there were any: who else is to be woken for them is the caller's business.
-- p_visibility_seconds is what long polls of former versions pass, see bus_subscribe.
create or replace function pgmq_bus.fetch(
    member pgmq_bus.membership, p_after bigint, p_visibility_seconds integer, p_limit integer, out p_own boolean,
    out ids bigint[], out messages jsonb[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    start bigint := p_after;
    scanned bigint;
    gap bigint := 0;
    returned bigint;
    again bigint;
begin
    -- One statement, so one snapshot: trimming changes the log and channel_state together.
    execute format(
        'select
             max(s.trimmed), max(q.msg_id), coalesce(bool_or(q.own), false),
             array_agg(q.msg_id order by q.msg_id) filter (where q.wanted),
             array_agg(q.message order by q.msg_id) filter (where q.wanted),
             count(*) filter (where q.wanted and q.msg_id <= $6)
         from pgmq_bus.channel_state as s
         left join lateral (
             select
                 l.msg_id, l.message, l.headers @> $4 as own,
                 $5 or l.headers is null or not l.headers @> $4 as wanted
             from pgmq.%I as l where l.msg_id > $1 order by l.msg_id limit $2
         ) as q on true
         where s.channel_id = $3',
        'q_' || member.log
    )
    into start, scanned, p_own, ids, messages, again
    using
        p_after, p_limit, member.channel_id, jsonb_build_object('peer', member.peer_id), member.self_delivery, member.delivered;

    if start > p_after then
        gap := pgmq_bus.given_between(member.channel_id, p_after, start);
    end if;
    scanned := greatest(scanned, start, p_after);
    if scanned = p_after and member.position <= p_after then
        return;
    end if;
    returned := ids[cardinality(ids)];
    update pgmq_bus.peer
    set position = scanned,
        delivered = greatest(delivered, returned),
        -- Where there is nothing to acknowledge it is done: own messages and lost ones must not hold the log back.
        acknowledged = case
            when p_after > acknowledged then acknowledged
            when returned is null then greatest(acknowledged, scanned)
            else greatest(acknowledged, start)
        end,
        last_seen = clock_timestamp(),
        login = session_user,
        lost = peer.lost + gap,
        redelivered = redelivered + coalesce(again, 0)
    where queue = member.queue;
end
$$;
