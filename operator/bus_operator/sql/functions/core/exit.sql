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
    delete from pgmq_bus.peer where queue = member.queue;
    return found;
end
$$;
