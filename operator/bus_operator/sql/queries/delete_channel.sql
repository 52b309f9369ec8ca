delete from pgmq_bus.channel where id = $1
