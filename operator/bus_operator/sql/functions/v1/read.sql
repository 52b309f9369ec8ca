-- Acknowledges, reads and heartbeats in one round trip. p_after null: where the server has this peer, with redelivery
-- of what was not acknowledged within its visibility timeout. For the rows see pgmq_bus.fetch.
create or replace function pgmq_bus_v1.read(
    p_channel text, p_queue text, p_after bigint, p_acknowledge bigint, p_visibility_seconds integer, p_limit integer
) returns table (msg_id bigint, message jsonb, lost bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    member pgmq_bus.membership;
    got_rows boolean := false;
begin
    perform pgmq_bus.require_range('p_visibility_seconds', p_visibility_seconds, 1, 43200);
    perform pgmq_bus.require_range('p_limit', p_limit, 0, 10000);
    perform pgmq_bus.require_range('p_after', coalesce(p_after, 0), 0, 9223372036854775807);
    select * into member from pgmq_bus.membership as m where m.queue = p_queue and m.channel = p_channel;
    if not found then
        raise insufficient_privilege using message = 'bus: access denied';
    end if;
    -- Losing an acknowledgement in a crash only means a redelivery: it never waits for the disk.
    perform pgmq_bus.commit_lazily();
    if p_acknowledge > member.acknowledged then
        perform pgmq_bus.acknowledge(member, p_acknowledge);
        select * into member from pgmq_bus.membership as m where m.queue = p_queue and m.channel = p_channel;
    end if;
    if p_limit > 0 then
        return query select f.* from pgmq_bus.fetch(
            member,
            case
                -- Never past what was handed out: a server that lost the end of an Async log in a crash gives ids again.
                when p_after is not null then least(p_after, greatest(member.delivered, member.position))
                when member.visible_at <= clock_timestamp() then member.acknowledged
                else member.position
            end,
            p_visibility_seconds,
            p_limit,
            true
        ) as f;
        got_rows := found;
    end if;
    if not got_rows then
        perform pgmq_bus.heartbeat(member, p_visibility_seconds);
    end if;
end
$$;
