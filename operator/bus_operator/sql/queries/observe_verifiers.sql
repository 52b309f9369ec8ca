-- What the server really holds, for an administrator who may see it.
select a.rolname::text as role, a.rolpassword as verifier
from pg_authid as a
where a.rolname in (select l.role from pgmq_bus.login as l where l.channel_id = $1)
