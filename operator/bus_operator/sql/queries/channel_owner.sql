select owner_uid from pgmq_bus.channel where name = $1
