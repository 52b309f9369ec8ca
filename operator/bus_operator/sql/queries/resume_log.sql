-- A log that was made anew goes on where the lost one ended: lower ids would be behind the cursors of all peers. Peers are told
-- that what they had not read is lost.
with ended as (
    select c.id, c.queue, greatest(s.trimmed, max(p.delivered), max(p.position), max(p.acknowledged)) as at
    from pgmq_bus.channel as c
    join pgmq_bus.channel_state as s on s.channel_id = c.id
    left join pgmq_bus.peer as p on p.channel_id = c.id
    where c.queue = $1
    group by c.id, s.trimmed
),
restarted as (
    select setval(pg_get_serial_sequence(format('pgmq.%I', 'q_' || queue), 'msg_id'), greatest(at, 1), at > 0) from ended
)
update pgmq_bus.channel_state as s
set trimmed = ended.at, measured_to = ended.at, measured_messages = 0, measured_bytes = 0
from ended, restarted
where s.channel_id = ended.id
