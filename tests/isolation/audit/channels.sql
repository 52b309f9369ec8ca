-- What clients change, and a digest of the rest.
select
    c.id, c.roster, c.left_lost, c.left_redelivered, s.trimmed, s.dropped_lost, s.dropped_redelivered,
    md5((to_jsonb(c) - array['roster', 'left_lost', 'left_redelivered'])::text)
from pgmq_bus.channel as c
join pgmq_bus.channel_state as s on s.channel_id = c.id
order by c.id
