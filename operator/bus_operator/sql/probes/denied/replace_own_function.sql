-- change its channel's functions
alter function pgmq_bus_channel.{{own_publish}} security invoker
