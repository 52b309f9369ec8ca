-- What the server really holds for the logins of a channel, or of all where $1 is null, for an administrator who may see it.
select a.rolname::text as role, a.rolpassword as verifier
from pg_authid as a
where a.rolname in (select l.role from pgmq_bus.login as l where $1::integer is null or l.channel_id = $1)
