-- create functions in schema pgmq_bus_channel
create function pgmq_bus_channel.pgmq_bus_probe() returns integer language sql as 'select 1'
