-- Who uses these logins of a channel: sessions, in whatever database of the server, and peers that were heard of under the
-- login. Behind a pooler there is not always a session. A peer says at least every tenth of the timeout, once it calls, under
-- which login it is, and calls at least every third, so that $3 of it is silence; where that is long, sessions have to do as
-- evidence.
select a.usename::text as login, null as host, nullif(a.application_name, '') as application, host(a.client_addr) as address
from pg_stat_activity as a
where a.usename = any ($2::text[])
union
select p.login::text, p.host, p.application, null
from pgmq_bus.peer as p
join pgmq_bus.channel as c on c.id = p.channel_id
where p.channel_id = $1 and p.login = any ($2::text[])
    and p.last_seen > clock_timestamp() - least(c.peer_timeout * $3::double precision, interval '10 minutes')
