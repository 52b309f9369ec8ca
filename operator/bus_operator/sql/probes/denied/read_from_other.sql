-- call what reads another channel
select msg_id from pgmq_bus_channel.{{other_read}}('none', 0, null, 0, null)
