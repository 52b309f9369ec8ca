-- change the registry
update pgmq_bus.channel set max_peers = max_peers
