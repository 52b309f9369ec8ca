-- Live peers; messages that at least one of them has not acknowledged; messages in the log.
select
    count(p.queue)::integer as peers,
    coalesce(h.head - min(p.acknowledged), 0)::bigint as backlog,
    (h.head - s.trimmed)::bigint as stored
from pgmq_bus.channel as c
join pgmq_bus.channel_state as s on s.channel_id = c.id
cross join lateral (select pgmq_bus.head(c.id) as head) as h
left join pgmq_bus.peer as p
    on p.channel_id = c.id and p.last_seen > clock_timestamp() - c.peer_timeout
where c.id = $1
group by h.head, s.trimmed
