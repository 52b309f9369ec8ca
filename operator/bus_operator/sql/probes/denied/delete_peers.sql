-- remove peers
delete from pgmq_bus.peer
