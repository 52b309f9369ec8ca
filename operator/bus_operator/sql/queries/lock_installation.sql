select from pgmq_bus.installation for update
