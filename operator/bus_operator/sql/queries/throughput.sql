-- What `busctl top` makes rates of, of the channels with these wire names, or of all where $1 is null: what was ever published,
-- how far each live peer has acknowledged, what waits, since when.
select
    c.id, c.name, c.owner_reference,
    extract(epoch from clock_timestamp())::double precision as at,
    coalesce(pgmq_bus.given_between(c.id, 0, h.head), 0) as published,
    coalesce(p.ids, '{}') as peers,
    coalesce(p.acknowledged, '{}') as acknowledged,
    coalesce(pgmq_bus.given_between(c.id, p.acknowledged_by_all, h.head), 0) as backlog,
    case when p.acknowledged_by_all < h.head then pgmq_bus.age_after(c.queue, p.acknowledged_by_all) end as oldest
from pgmq_bus.channel as c
-- offset 0: else it is called wherever it is named.
cross join lateral (select pgmq_bus.head(c.id) as head offset 0) as h
cross join lateral (
    select array_agg(peer.id) as ids, array_agg(peer.acknowledged) as acknowledged, min(peer.acknowledged) as acknowledged_by_all
    from pgmq_bus.peer
    where peer.channel_id = c.id and peer.last_seen > clock_timestamp() - c.peer_timeout
) as p
where $1::text[] is null or c.name = any ($1)
