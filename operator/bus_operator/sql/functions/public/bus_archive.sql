-- Acknowledges everything up to p_msg_id: the reader is sequential, so this only ever removes duplicates.
create or replace function public.bus_archive(p_my_queue text, p_channel text, p_msg_id bigint) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    member pgmq_bus.membership;
begin
    select * into member from pgmq_bus.membership as m where m.queue = p_my_queue and m.channel = p_channel;
    if not found then
        perform pgmq_bus.deny(p_my_queue);
    end if;
    perform pgmq_bus.commit_lazily();
    return pgmq_bus.acknowledge(member, p_msg_id);
end
$$;
