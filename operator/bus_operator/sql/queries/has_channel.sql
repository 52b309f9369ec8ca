select exists (select from pgmq_bus.channel where name = $1)
