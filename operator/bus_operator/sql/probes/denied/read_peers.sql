-- read the positions of all peers
select queue from pgmq_bus.peer
