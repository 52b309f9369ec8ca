-- How to reach the other live peers of the channel, and what to encrypt with. One of those that can be rung watches: it listens
-- for what the reference client's peers publish, who ring nobody, and rings the others for it.
create or replace function pgmq_bus_v1.roster(p_channel text, p_queue text) returns jsonb
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
    return (
        select jsonb_build_object(
            'version', c.roster,
            'key', encode(c.doorbell_key, 'base64'),
            'wake', c.wake,
            'peers', count(p.id),
            'foreign', coalesce(bool_or(p.is_foreign), false),
            'watches', coalesce(
                (array_agg(p.queue order by p.id) filter (where p.address is not null and not p.is_foreign))[1] = p_queue, false
            ),
            'listeners', coalesce(bool_or(p.listens), false),
            'addresses', coalesce(jsonb_agg(p.address) filter (where p.queue <> p_queue and p.address is not null), '[]')
        )
        from pgmq_bus.channel as c
        left join pgmq_bus.peer as p
            on p.channel_id = c.id and p.last_seen > clock_timestamp() - c.peer_timeout
        where c.id = member.channel_id
        group by c.id
    );
end
$$;
