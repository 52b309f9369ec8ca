-- Removes a peer; false when this session has no such peer. Trims first, while the peer's position still counts, so that a
-- channel that everybody left after reading everything is empty. Locks the peer, then the channel, and both before it touches
-- the log, as everywhere: see pgmq_bus.enter.
create or replace function pgmq_bus.exit(p_channel text, p_queue text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    member pgmq_bus.membership;
begin
    select * into member from pgmq_bus.membership as m where m.queue = p_queue and m.channel = p_channel;
    if not found then
        return false;
    end if;
    perform from pgmq_bus.peer where queue = member.queue for update;
    if not found then
        return false;
    end if;
    perform pgmq_bus.change_roster(member.channel_id);
    perform pgmq_bus.trim(member.channel_id, true);
    with gone as (
        delete from pgmq_bus.peer where queue = member.queue returning lost, redelivered
    )
    update pgmq_bus.channel as c
    set left_lost = c.left_lost + gone.lost, left_redelivered = c.left_redelivered + gone.redelivered
    from gone
    where c.id = member.channel_id and gone.lost + gone.redelivered > 0;
    return true;
end
$$;
