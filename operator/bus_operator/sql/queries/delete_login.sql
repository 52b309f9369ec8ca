delete from pgmq_bus.login where role = $1
