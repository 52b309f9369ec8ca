-- read the names of all channels
select name from pgmq_bus.channel
