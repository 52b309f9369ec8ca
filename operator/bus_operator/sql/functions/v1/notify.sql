-- Wakes those peers that LISTEN, after a publish: in a transaction of its own, because a notifying commit holds one lock of
-- the whole server, and one that never waits for the disk.
create or replace function pgmq_bus_v1.notify(p_channel text, p_queue text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    member pgmq_bus.membership;
begin
    select * into member from pgmq_bus.membership as m where m.queue = p_queue and m.channel = p_channel;
    if not found then
        perform pgmq_bus.deny(p_queue);
    end if;
    perform pgmq_bus.commit_lazily();
    perform pgmq_bus.notify_listeners(member.wake);
end
$$;
