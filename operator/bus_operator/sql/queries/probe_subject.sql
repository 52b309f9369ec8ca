-- Whom a login's attempts are aimed at: its channel, another one of the same database, and this administrator. is_alive: joining would
-- not have to find out the end of the log after a crash, which leaves a trace.
select
    c.queue, c.role::text as role, other.queue as other_queue, other.role::text as other_role, current_user::text as administrator,
    current_database()::text as database,
    exists (select from pgmq_bus.channel_alive as a where a.channel_id = c.id) as is_alive
from pgmq_bus.channel as c
left join lateral (
    select o.queue, o.role from pgmq_bus.channel as o
    where o.id <> c.id
    order by o.id < c.id, o.id
    limit 1
) as other on true
where c.name = $1
