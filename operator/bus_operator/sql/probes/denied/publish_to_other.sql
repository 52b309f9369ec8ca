-- call what publishes to another channel
select ids from pgmq_bus_channel.{{other_publish}}('none', '{}')
