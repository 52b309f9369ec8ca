-- How every channel is used, in one go. Live peers, by how they are woken; what the slowest of them has not acknowledged, and
-- the age of its first in seconds; what was ever published, delivered again and lost; what is in the log.
select
    c.id,
    c.owner_uid,
    p.doorbell,
    p.listen,
    p.poll,
    coalesce(pgmq_bus.given_between(c.id, p.acknowledged_by_all, h.head), 0) as backlog,
    case when p.acknowledged_by_all < h.head then pgmq_bus.age_after(c.queue, p.acknowledged_by_all) end as oldest,
    coalesce(pgmq_bus.given_between(c.id, 0, h.head), 0) as published,
    c.left_redelivered + s.dropped_redelivered + p.redelivered as redelivered,
    c.left_lost + s.dropped_lost + p.lost as lost,
    coalesce(pgmq_bus.given_between(c.id, s.trimmed, h.head), 0) as messages,
    coalesce(pg_total_relation_size(to_regclass(format('pgmq.%I', 'q_' || c.queue))), 0) as bytes
from pgmq_bus.channel as c
join pgmq_bus.channel_state as s on s.channel_id = c.id
-- offset 0: else it is called wherever it is named.
cross join lateral (select pgmq_bus.head(c.id) as head offset 0) as h
cross join lateral (
    select
        count(*) filter (where seen.live and seen.address is not null and not seen.listens)::integer as doorbell,
        count(*) filter (where seen.live and seen.listens)::integer as listen,
        count(*) filter (where seen.live and seen.address is null and not seen.listens)::integer as poll,
        min(seen.acknowledged) filter (where seen.live) as acknowledged_by_all,
        coalesce(sum(seen.redelivered), 0)::bigint as redelivered,
        coalesce(sum(seen.lost), 0)::bigint as lost
    from (
        select peer.*, peer.last_seen > clock_timestamp() - c.peer_timeout as live
        from pgmq_bus.peer
        where peer.channel_id = c.id
    ) as seen
) as p
