-- Reads for a peer whose membership was checked: up to p_limit messages after p_after, in order, marked as delivered.
-- A first row without message and with lost = n says that up to n messages after p_after were trimmed while the peer was
-- away. A last row without message and lost says that the log was read up to there and what was left out is the peer's own.
-- p_extend: what was in hand before is kept from redelivery as long as what is handed out now.
create or replace function pgmq_bus.fetch(
    member pgmq_bus.membership, p_after bigint, p_visibility_seconds integer, p_limit integer, p_extend boolean
) returns table (msg_id bigint, message jsonb, lost bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    item record;
    scanned bigint := p_after;
    told bigint := p_after;
    returned bigint;
    gap bigint := 0;
    again bigint := 0;
begin
    -- One statement, so one snapshot: trimming changes the log and channel_state together.
    for item in execute format(
        'select s.trimmed, q.msg_id, q.message, q.headers ->> ''peer'' as sender
         from pgmq_bus.channel_state as s
         left join lateral (
             select l.msg_id, l.message, l.headers from pgmq.%I as l where l.msg_id > $1 order by l.msg_id limit $2
         ) as q on true
         where s.channel_id = $3
         order by q.msg_id',
        'q_' || member.log
    ) using p_after, p_limit, member.channel_id
    loop
        if scanned < item.trimmed then
            gap := item.trimmed - scanned;
            scanned := item.trimmed;
            told := item.trimmed;
            msg_id := item.trimmed;
            message := null;
            lost := gap;
            return next;
            lost := null;
        end if;
        if item.msg_id is not null then
            scanned := item.msg_id;
            if item.sender is distinct from member.queue then
                again := again + (item.msg_id <= member.delivered)::integer;
                told := item.msg_id;
                returned := item.msg_id;
                msg_id := item.msg_id;
                message := item.message;
                return next;
            end if;
        end if;
    end loop;

    if scanned = p_after then
        return;
    end if;
    if scanned > told then
        msg_id := scanned;
        message := null;
        return next;
    end if;
    update pgmq_bus.peer
    set position = scanned,
        delivered = greatest(delivered, returned),
        -- With nothing in hand there is nothing to acknowledge: own messages and lost ones must not hold the log back.
        acknowledged = case when returned is null and acknowledged >= delivered then greatest(acknowledged, scanned) else acknowledged end,
        visible_at = case
            when p_extend or acknowledged >= delivered or visible_at <= clock_timestamp()
                then clock_timestamp() + make_interval(secs => p_visibility_seconds)
            else visible_at
        end,
        last_seen = clock_timestamp(),
        login = session_user,
        lost = peer.lost + gap,
        redelivered = redelivered + again
    where queue = member.queue;
end
$$;
