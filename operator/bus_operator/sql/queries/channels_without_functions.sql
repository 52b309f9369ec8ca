-- The channels that have a role, and no functions of their own yet.
select c.id, c.queue, c.role::text as role
from pgmq_bus.channel as c
where c.functions_fingerprint is null and to_regrole(c.role::text) is not null
