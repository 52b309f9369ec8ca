-- Live peers, and how they are woken; messages that at least one of them has not acknowledged, and up to where all have;
-- messages in the log.
select
    c.queue,
    count(p.queue)::integer as peers,
    count(p.queue) filter (where p.address is not null and not p.listens)::integer as doorbell,
    count(p.queue) filter (where p.listens)::integer as listen,
    count(p.queue) filter (where p.address is null and not p.listens)::integer as poll,
    coalesce(pgmq_bus.given_between(c.id, min(p.acknowledged), h.head), 0) as backlog,
    min(p.acknowledged) as acknowledged_by_all,
    pgmq_bus.given_between(c.id, s.trimmed, h.head) as stored
from pgmq_bus.channel as c
join pgmq_bus.channel_state as s on s.channel_id = c.id
cross join lateral (select pgmq_bus.head(c.id) as head) as h
left join pgmq_bus.peer as p
    on p.channel_id = c.id and p.last_seen > clock_timestamp() - c.peer_timeout
where c.id = $1
group by c.id, h.head, s.trimmed
