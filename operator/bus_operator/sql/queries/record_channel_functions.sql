update pgmq_bus.channel set functions_fingerprint = $2 where id = $1
