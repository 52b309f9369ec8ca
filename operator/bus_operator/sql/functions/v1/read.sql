-- What the runtime of schema version 2 calls; later ones call the channel's own function. Rows as there, but those about the
-- roster. The visibility timeout means nothing any more: nobody else gets what this peer has read.
create or replace function pgmq_bus_v1.read(
    p_channel text, p_queue text, p_after bigint, p_acknowledge bigint, p_visibility_seconds integer, p_limit integer
) returns table (msg_id bigint, message jsonb, lost bigint)
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
    return query execute format(
        'select r.msg_id, r.message::jsonb, r.lost from pgmq_bus_channel.%I($1, $2, $3, $4, $5) as r where r.msg_id is not null',
        'read_' || replace(member.log, 'bus_', '')
    ) using p_queue, p_after, p_acknowledge, p_limit, member.roster;
end
$$;
