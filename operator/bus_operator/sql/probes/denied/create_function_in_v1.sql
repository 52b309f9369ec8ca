-- create functions in schema pgmq_bus_v1
create function pgmq_bus_v1.pgmq_bus_probe() returns integer language sql as 'select 1'
