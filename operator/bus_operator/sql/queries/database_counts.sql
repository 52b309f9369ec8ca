select count(*)::integer as channels from pgmq_bus.channel
