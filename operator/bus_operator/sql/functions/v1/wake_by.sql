-- Changes how the calling peer is woken: its doorbell's address, and whether it listens. Returns the roster's new version.
create or replace function pgmq_bus_v1.wake_by(p_channel text, p_queue text, p_address text, p_listens boolean) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    member pgmq_bus.membership;
begin
    perform pgmq_bus.require_address(p_address);
    select * into member from pgmq_bus.membership as m where m.queue = p_queue and m.channel = p_channel;
    if not found then
        perform pgmq_bus.deny(p_queue);
    end if;
    -- The peer before the channel: see pgmq_bus.enter.
    update pgmq_bus.peer set address = p_address, listens = coalesce(p_listens, false) where queue = p_queue;
    return pgmq_bus.change_roster(member.channel_id);
end
$$;
