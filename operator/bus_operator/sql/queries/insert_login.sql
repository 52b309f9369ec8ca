insert into pgmq_bus.login (role, channel_id, generation, verifier) values ($1, $2, $3, $4)
on conflict (role) do update set verifier = excluded.verifier
