-- Moves a long-polling peer's acknowledged position up to p_msg_id; true when it moved. Never past what was delivered, so a
-- wrong number cannot make a peer deaf. When nothing delivered is left in hand, what was scanned and left out is done as well.
create or replace function pgmq_bus.acknowledge(member pgmq_bus.membership, p_msg_id bigint) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update pgmq_bus.peer
    set acknowledged = case when p_msg_id >= delivered then greatest(p_msg_id, position) else p_msg_id end,
        position = greatest(position, p_msg_id),
        last_seen = clock_timestamp()
    where queue = member.queue and p_msg_id > acknowledged and p_msg_id <= greatest(delivered, position);
    if not found then
        return false;
    end if;
    perform pgmq_bus.trim(member.channel_id);
    return true;
end
$$;
