-- What the runtime of schema version 2 calls; later ones call the channel's own function. It rings no doorbells and sends no
-- notification of its own, so whoever listens is notified here.
create or replace function pgmq_bus_v1.publish(p_channel text, p_queue text, p_messages jsonb[]) returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    member pgmq_bus.membership;
    ids bigint[];
begin
    select * into member from pgmq_bus.membership as m where m.queue = p_queue and m.channel = p_channel;
    if not found then
        perform pgmq_bus.deny(p_queue);
    end if;
    execute format('select ids from pgmq_bus_channel.%I($1, $2)', 'publish_' || replace(member.log, 'bus_', ''))
        into ids using p_queue, p_messages::text[];
    perform pgmq_bus.notify_listeners(member.wake);
    return ids;
end
$$;
