-- How many messages are in channels that nobody has joined: those with these wire names, or all where $1 is null.
select c.name, pgmq_bus.given_between(c.id, s.trimmed, pgmq_bus.head(c.id)) as messages
from pgmq_bus.channel as c
join pgmq_bus.channel_state as s on s.channel_id = c.id
where ($1::text[] is null or c.name = any ($1))
    and not exists (
        select from pgmq_bus.peer as p where p.channel_id = c.id and p.last_seen > clock_timestamp() - c.peer_timeout
    )
