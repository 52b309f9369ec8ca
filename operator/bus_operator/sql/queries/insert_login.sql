insert into pgmq_bus.login (role, channel_id, generation, verifier, request) values ($1, $2, $3, $4, $5)
on conflict (role) do update set verifier = excluded.verifier, request = excluded.request
