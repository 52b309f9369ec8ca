-- lock the registry
lock table pgmq_bus.channel in access share mode
