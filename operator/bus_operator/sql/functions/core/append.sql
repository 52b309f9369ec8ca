-- Publishes one message of the reference client. Its readers poll; those that wait to be woken are notified here, but never
-- by the transaction that waits for the disk: a notifying commit holds one lock of the whole server. After a Sync publish
-- the publisher's own next long poll does it (see bus_subscribe).
create or replace function pgmq_bus.append(p_channel text, p_queue text, p_message jsonb) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    member pgmq_bus.membership;
    ids bigint[];
begin
    select * into member from pgmq_bus.membership where queue = p_queue and channel = p_channel;
    if not found then
        perform pgmq_bus.deny(p_queue);
    end if;
    execute format('select ids from pgmq_bus_channel.%I($1, $2)', 'publish_' || replace(member.log, 'bus_', ''))
        into ids using p_queue, array[p_message::text];
    if member.durability <> 'Sync' then
        perform pgmq_bus.notify_listeners(member.wake);
    end if;
    return ids;
end
$$;
