-- Removes a peer; false when this session has no such peer. Trims first, while the peer's position still counts, so that a
-- channel that everybody left after reading everything is empty.
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
    perform pgmq_bus.commit_lazily();
    -- Before the log is touched, as everywhere: whoever rewrites the log holds this lock first.
    update pgmq_bus.channel set roster = roster + 1 where id = member.channel_id;
    perform pgmq_bus.trim(member.channel_id, true);
    delete from pgmq_bus.peer where queue = member.queue;
    return found;
end
$$;
